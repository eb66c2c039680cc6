// Package crashtest kills a controller of a local platform with SIGKILL at
// chosen moments, starts it again, and looks from outside whether all ends as
// if nothing had happened.
//
// The controller is a program that is given a directory, the autopilot of the
// examples. The package plays everybody else: the developer who pushes a bad
// release into DIR/desired.git, the replica that begins to leak, and the
// machine that takes the controller away. It believes nothing that the
// controller says: what runs is read from DIR/run and the system's process
// table, what was decided from the repository, what is open from a copy of the
// journal.
//
//	r, err := crashtest.Run(ctx, crashtest.Options{
//		Command: []string{"/tmp/autopilot"}, Dir: dir, Seed: 7,
//	})
//	if err != nil {
//		return err // the run could not be made: says nothing of the controller
//	}
//	fmt.Println(r.Converged, r.Doubles, r.Wrong)
//
// A [Plan], and with it what a run does and when, follows from the seed alone;
// what the operating system makes of it does not.
//
// Run ends all processes of the directory before it returns, whatever happens.
package crashtest
