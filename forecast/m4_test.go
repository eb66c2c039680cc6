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
	models := []Model{SeasonalNaive{Period: 24}}
	if !testing.Short() {
		models = append(models,
			ETS{Trend: DampedTrend, Season: AdditiveSeason, Period: 24},
			ETS{Trend: DampedTrend, Season: MultiplicativeSeason, Period: 24},
			Profile{Period: 24})
	}
	var base Score
	scores, within := make([]Score, len(models)), make([]float64, len(models))
	n := float64(len(train))
	elapsed := make([]time.Duration, len(models))
	for i := range train {
		two := naive2(train[i], 24, len(test[i]))
		base.SMAPE += SMAPE(test[i], two) / n
		base.MASE += MASE(test[i], two, train[i], 24) / n
		s := Series{Name: ids[i], Start: time.Date(2017, 1, 1, 0, 0, 0, 0, time.UTC), Step: time.Hour, Values: train[i]}
		for k, m := range models {
			begin := time.Now()
			f := mustForecast(t, mustFit(t, m, s), len(test[i]), 0.025, 0.975)
			elapsed[k] += time.Since(begin)
			score := NewScore(f, test[i], train[i], 24)
			scores[k].SMAPE += score.SMAPE / n
			scores[k].MASE += score.MASE / n
			within[k] += score.Coverage / n
		}
	}
	near := func(what string, got, want float64) {
		if math.Abs(got-want) > 0.001 {
			t.Errorf("%s is %.4f, officially %.3f", what, got, want)
		}
	}
	near("sMAPE of Naive2", base.SMAPE, 18.383)
	near("MASE of Naive2", base.MASE, 2.395)
	near("sMAPE of seasonal naive", scores[0].SMAPE, 13.912)
	near("MASE of seasonal naive", scores[0].MASE, 1.193)
	for k, m := range models {
		owa := (scores[k].SMAPE/base.SMAPE + scores[k].MASE/base.MASE) / 2
		t.Logf("%-20s sMAPE %6.3f  MASE %.3f  OWA %.3f  95 %% covers %.1f %%  %v a series", m.Name(), scores[k].SMAPE, scores[k].MASE, owa, 100*within[k], elapsed[k]/time.Duration(len(train)))
		if k == 0 {
			near("OWA of seasonal naive", owa, 0.627)
		}
	}
}
