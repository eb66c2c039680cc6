package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
)

// step is one part of the story and how it ended.
type step struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
}

// repair is one incident from its first bad sample to its end; seconds of
// wall time since the first bad sample, absent where it did not get there.
type repair struct {
	Incident string  `json:"incident"`
	Onset    seconds `json:"onset_s"` // first bad sample, since the start
	Service  string  `json:"service,omitempty"`
	Instance string  `json:"instance,omitempty"`
	Commit   string  `json:"blamed_commit,omitempty"`
	Class    string  `json:"class,omitempty"`
	Status   string  `json:"status"`
	Detect   seconds `json:"detect_s,omitempty"`
	Cause    seconds `json:"cause_s,omitempty"`
	Act      seconds `json:"act_s,omitempty"`
	Verify   seconds `json:"verify_s,omitempty"`
}

// release is the bad release that the story injected: what a repair ought to
// have found. Seconds of wall time since the start.
type release struct {
	Culprit string  `json:"culprit"`
	Defect  string  `json:"defect"`
	Commit  string  `json:"bad_commit"`
	Pushed  seconds `json:"pushed_s"`
}

type seconds float64

func (s seconds) String() string {
	if s == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f s", float64(s))
}

// commit is one that automation made.
type commit struct {
	Revision string   `json:"revision"`
	Subject  string   `json:"subject"`
	Trailers []string `json:"trailers,omitempty"`
}

// summary is the outcome of a run, for people and machines.
type summary struct {
	OK             bool     `json:"ok"`
	Story          string   `json:"story"`
	Seed           uint64   `json:"seed"`
	WallSeconds    float64  `json:"wall_s"`
	SimulatedHours float64  `json:"simulated_h"`
	Steps          []step   `json:"steps"`
	Release        *release `json:"release,omitempty"`
	Repairs        []repair `json:"repairs"`
	Commits        []commit `json:"commits"`

	RequestsSent   int64   `json:"requests_sent"`
	RequestsFailed int64   `json:"requests_failed"`
	FailedShare    float64 `json:"failed_request_share"`

	ReplicaMinutes float64 `json:"replica_minutes"`
	StaticMinutes  float64 `json:"static_replica_minutes"`
	// What forecast and HPA rule cost in a replay on the measured demand.
	ForecastMinutes float64 `json:"forecast_replica_minutes"`
	HPAMinutes      float64 `json:"hpa_replica_minutes"`
	// The shares of steps with more demand than ready capacity, all services.
	ShortShare         float64 `json:"short_share"`
	ForecastShortShare float64 `json:"forecast_short_share"`
	HPAShortShare      float64 `json:"hpa_short_share"`
}

func (s summary) figures() [][2]string {
	cost := func(minutes, short float64) string {
		out := fmt.Sprintf("%.0f replica-minutes", minutes)
		if s.HPAMinutes > 0 {
			out += fmt.Sprintf(", %.2f of the HPA rule's", minutes/s.HPAMinutes)
		}
		return out + fmt.Sprintf("; demand above ready capacity %.2f %% of the time", 100*short)
	}
	return [][2]string{
		{"requests", fmt.Sprintf("%d sent, %d failed (%.2f %%)", s.RequestsSent, s.RequestsFailed, 100*s.FailedShare)},
		{"capacity, used", cost(s.ReplicaMinutes, s.ShortShare)},
		{"  the forecast, replayed", cost(s.ForecastMinutes, s.ForecastShortShare)},
		{"  the HPA rule, replayed", cost(s.HPAMinutes, s.HPAShortShare)},
		{"  a static fleet", cost(s.StaticMinutes, 0)},
		{"commits by automation", fmt.Sprint(len(s.Commits))},
		{"time", fmt.Sprintf("%.0f s for %.0f simulated hours", s.WallSeconds, s.SimulatedHours)},
	}
}

// write prints the summary for people.
func (s summary) write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w)
	if len(s.Steps) > 0 {
		fmt.Fprintf(t, "STEP\tRESULT\tWHAT CAME OF IT\n")
		for _, st := range s.Steps {
			result := "ok"
			if !st.OK {
				result = "FAILED"
			}
			fmt.Fprintf(t, "%s\t%s\t%s\n", st.Name, result, st.Detail)
		}
		if err := t.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	if len(s.Repairs) > 0 {
		fmt.Fprintf(t, "INCIDENT\tCAUSE\tREMEDY\tDETECTED\tCAUSE NAMED\tREPAIRED\tVERIFIED\tSTATUS\n")
		for _, r := range s.Repairs {
			cause := r.Service
			if r.Instance != "" {
				cause += "/" + r.Instance
			}
			if r.Commit != "" {
				cause += " " + r.Commit
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", r.Incident, cause, r.Class, r.Detect, r.Cause, r.Act, r.Verify, r.Status)
		}
		fmt.Fprintf(t, "\t\t\t(wall time since the first bad sample)\n")
		if err := t.Flush(); err != nil {
			return err
		}
		fmt.Fprintln(w)
	}
	for _, f := range s.figures() {
		fmt.Fprintf(t, "%s\t%s\n", f[0], f[1])
	}
	return t.Flush()
}

// writeJSON writes the summary to a file, or to out for "-".
func (s summary) writeJSON(file string, out io.Writer) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	b = append(b, '\n')
	if file == "-" {
		_, err = out.Write(b)
		return err
	}
	return os.WriteFile(file, b, 0o644)
}
