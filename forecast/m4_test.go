package forecast

import (
	"encoding/csv"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// readM4 reads a file in M4's layout: an id and values in each row.
func readM4(t *testing.T, name string) (ids []string, rows [][]float64) {
	t.Helper()
	path := filepath.Join("..", "..", "shared", "data", "forecast", "m4", name)
	file, err := os.Open(path)
	if os.IsNotExist(err) {
		t.Skipf("M4 is not here: %s", path)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r := csv.NewReader(file)
	r.FieldsPerRecord = -1
	records, err := r.ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	for _, record := range records[1:] {
		var row []float64
		for _, cell := range record[1:] {
			if cell == "" {
				break
			}
			v, err := strconv.ParseFloat(cell, 64)
			if err != nil {
				t.Fatal(err)
			}
			row = append(row, v)
		}
		ids, rows = append(ids, record[0]), append(rows, row)
	}
	return ids, rows
}

// naive2 is M4's reference: the last value of the series with its season taken
// out (classical multiplicative decomposition) where the autocorrelation test
// at 90 % says that it has one.
func naive2(train []float64, period, horizon int) []float64 {
	n := len(train)
	out := make([]float64, horizon)
	for h := range out {
		out[h] = train[n-1]
	}
	if !seasonal(train, period) {
		return out
	}
	// Centred moving average of an even period, then the mean ratio by season.
	sums, counts := make([]float64, period), make([]float64, period)
	for t := period / 2; t < n-period/2; t++ {
		trend := (train[t-period/2] + train[t+period/2]) / 2
		for i := t - period/2 + 1; i < t+period/2; i++ {
			trend += train[i]
		}
		sums[t%period] += train[t] / (trend / float64(period))
		counts[t%period]++
	}
	total := 0.0
	for i := range sums {
		sums[i] /= counts[i]
		total += sums[i]
	}
	for h := range out {
		out[h] = train[n-1] / sums[(n-1)%period] * sums[(n+h)%period]
	}
	return out
}

func seasonal(x []float64, period int) bool {
	n := len(x)
	if n < 3*period {
		return false
	}
	m := 0.0
	for _, v := range x {
		m += v / float64(n)
	}
	autocorrelation := func(lag int) float64 {
		var num, den float64
		for t, v := range x {
			den += (v - m) * (v - m)
			if t >= lag {
				num += (v - m) * (x[t-lag] - m)
			}
		}
		return num / den
	}
	sum := 1.0
	for lag := 1; lag < period; lag++ {
		r := autocorrelation(lag)
		sum += 2 * r * r
	}
	return math.Abs(autocorrelation(period)) > 1.645/math.Sqrt(float64(n))*math.Sqrt(sum)
}

// The measures reproduce the official M4 figures on the 414 hourly series:
// Naive2 18.383 and 2.395, seasonal naive 13.912 and 1.193, OWA 0.627.
func TestM4Hourly(t *testing.T) {
	ids, train := readM4(t, "Hourly-train.csv")
	_, test := readM4(t, "Hourly-test.csv")
	for _, tt := range []struct {
		model     Model
		published bool // the others are only reported
	}{
		{SeasonalNaive{Period: 24}, true},
		{ETS{Trend: DampedTrend, Season: AdditiveSeason, Period: 24}, false},
		{ETS{Trend: DampedTrend, Season: MultiplicativeSeason, Period: 24}, false},
		{Profile{Period: 24}, false},
	} {
		var two, own Score
		n := 0.0
		begin := time.Now()
		for i := range train {
			n++
			reference := naive2(train[i], 24, len(test[i]))
			two.SMAPE += SMAPE(test[i], reference)
			two.MASE += MASE(test[i], reference, train[i], 24)
			s := Series{Name: ids[i], Start: time.Date(2017, 1, 1, 0, 0, 0, 0, time.UTC), Step: time.Hour, Values: train[i]}
			f := mustForecast(t, mustFit(t, tt.model, s), len(test[i]), 0.025, 0.975)
			score := NewScore(f, test[i], train[i], 24)
			own.SMAPE += score.SMAPE
			own.MASE += score.MASE
			own.Coverage += score.Coverage
		}
		owa := (own.SMAPE/two.SMAPE + own.MASE/two.MASE) / 2
		t.Logf("%-15s %3.0f series: sMAPE %6.3f  MASE %.3f  OWA %.3f  95 %% covers %.1f %%  in %v",
			tt.model.Name(), n, own.SMAPE/n, own.MASE/n, owa, 100*own.Coverage/n, time.Since(begin).Round(time.Millisecond))
		if !tt.published {
			continue
		}
		for _, check := range []struct {
			what      string
			got, want float64
		}{
			{"sMAPE of Naive2", two.SMAPE / n, 18.383},
			{"MASE of Naive2", two.MASE / n, 2.395},
			{"sMAPE of seasonal naive", own.SMAPE / n, 13.912},
			{"MASE of seasonal naive", own.MASE / n, 1.193},
			{"OWA of seasonal naive", owa, 0.627},
		} {
			if math.Abs(check.got-check.want) > 0.001 {
				t.Errorf("%s is %.4f, officially %.3f", check.what, check.got, check.want)
			}
		}
	}
}
