// Package rootcause names the cause of an incident: it ranks services and
// their metrics, and the change to blame, with evidence for a person, and says
// nothing where nothing is off.
//
// A metric's score is how far its level after the onset is from that before,
// in units of its robust noise, with floors so that nothing wins by a division
// by nearly zero, and with regard to direction: errors that rise are trouble,
// a request rate that falls is mostly a symptom. Along the call graph a
// service is relieved of what its callees explain of its deviation, and they
// are charged with it: symptoms run from callee to caller, so blame runs
// against them. Metrics that leave callees out (self_ms, self_error_ratio)
// sharpen this and are not needed. A service that reports nothing any more
// while its callers are off is charged with what they show. Changes before the onset are weighed by
// time, by what they touched and by which fields they changed.
//
// # Guarantees
//
//  1. The report depends on the content of the input alone, not on the order
//     of metrics, edges or changes: bit for bit.
//  2. A metric that is constant, missing, NaN or infinite never wins by
//     division.
//  3. A callee whose request rate merely drops is not blamed for its caller's
//     fault.
//  4. A change after the onset, or one outside the window, is never blamed;
//     and none is where no confidence reaches the threshold.
//  5. Nothing of the input is changed or kept.
//  6. The onset may be off by Options.OnsetWindow.
//
// # Example
//
//	report, err := rootcause.Analyzer{}.Analyze(ctx, rootcause.Input{
//		Start: start, Step: time.Second, Metrics: metrics,
//		Onset:  incident.OnsetLatest,
//		Target: incident.Alerts[0].Series,
//		Graph: []rootcause.Edge{
//			{Caller: "frontend", Callee: "checkout"}, {Caller: "checkout", Callee: "payment"},
//		},
//		Changes: deployed,
//	})
//	// …
//	fmt.Println(report.Class, report.Why)
//	for _, s := range report.Services {
//		fmt.Println(s.Service, s.Confidence, s.Evidence)
//	}
//
// # What happens on failure
//
// Input that contradicts itself (lengths that differ, a step of zero, a target
// that nothing knows) fails with [ErrInput], naming the field. Too little data
// is no error: with fewer than five rows before the onset, or two after it, a
// metric counts as ordinary, and with none that is off the report has no
// services and the class Escalate.
package rootcause
