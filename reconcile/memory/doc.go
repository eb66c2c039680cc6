// Package memory holds a target and a source of desired state in memory: a
// [reconcile.Actuator] to try the loop on, to test a host's wiring with, and
// to read as the smallest complete example of one.
//
//	var target memory.Target
//	var git memory.Source
//	r, err := reconcile.New(reconcile.Options{Source: &git, Actuator: &target})
//
// It guarantees what the Actuator contract asks for, and no more:
//
//  1. A change is made as a whole or not at all, and its precondition is
//     checked under the same lock as the change.
//  2. Observed states are immutable: later changes never show in them.
//  3. Applying a change a second time succeeds or conflicts; it never doubles
//     an effect.
//
// [Target.Edit] plays the person who changes things by hand, and Target.Fail
// the platform that refuses. A change that fails leaves everything as it was.
package memory
