// Package localplatform runs Deployments as real processes of this machine:
// a platform to try evenkeel on with nothing to install.
//
// Everything that a loop can get wrong is there. Processes take time to start
// and to warm up, die, are started by somebody else, overload, leak and get
// stuck; the load balancer finds out by probing; metrics are scraped over
// HTTP; and the controller can be killed at any moment and comes back to what
// it left. [Platform] is the API server, the scheduler and the kubelet of it.
// It implements [reconcile.Actuator] and [reconcile.Watcher].
//
//	p, err := localplatform.Open(ctx, localplatform.Options{Dir: dir})
//	if err != nil {
//		return err
//	}
//	defer p.Close(context.Background())
//	if err := shop.PublishBase(p.Dir()); err != nil { // fill the image registry
//		return err
//	}
//	if err := p.StartInfrastructure(ctx, nil); err != nil { // the load balancer
//		return err
//	}
//	// A reconcile.Reconciler with p as its Actuator now applies shop.Manifests();
//	// then the load:
//	err = p.StartInfrastructure(ctx, &shop.LoadConfig{SimStart: day, WallStart: time.Now(),
//		Speed: 1440, Daily: shop.Daily{Peak: 70}})
//
// The live object of a Deployment is the declared one overlaid with what
// runs: spec.replicas is the number of live processes, whoever started them;
// spec.template is that of the older processes while two templates run;
// status has replicas, readyReplicas and updatedReplicas. So a process that
// was killed, and one that was started by hand, are differences, which the
// reconciler finds and mends: the platform itself mends nothing but its load
// balancer and load generator.
//
// It guarantees:
//
//  1. The version of a live object changes whenever its spec does, whether by
//     a write or by what happens to its processes.
//  2. A change is on disk before a process is started or stopped for it. Cut
//     off anywhere, it leaves a live object that differs from the declared
//     one, and the next change goes on from there.
//  3. In a rollout the old processes serve until the new ones are ready. If
//     those do not get ready, the old ones stay.
//  4. A process that is stopped by the platform finishes what it has accepted.
//  5. [Platform.RestartInstance] is made once for each action ID, also over
//     crashes of the controller.
//  6. Nothing is left behind: after [Platform.Close], after the end of the
//     context, and after the controller was killed, when the lease runs out.
//  7. One controller at a time has a directory; one that comes back adopts
//     the processes of the one before, told apart by pid and start time.
//
// # Failure
//
// An image that the registry does not have is [reconcile.ErrTerminal], with
// the image's name, and changes nothing. A process that does not come up is
// an error that may pass, with the last line that the process wrote. A
// ConfigMap that a Deployment reads and that is not there yet is an error
// that may pass too. Namespaces are objects like others: deleting one does
// not delete what is in it.
//
// It needs a Unix system; start times of processes and their memory are read
// from /proc where there is one.
package localplatform
