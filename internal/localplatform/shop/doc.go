// Package shop is the platform's workload: a small shop of seven services, a
// load balancer and a load generator, each a real process of the host's own
// binary, started again with other arguments (see [Main]).
//
//	load --> lb --> frontend --> catalogue --> stock
//	                   |-------> cart
//	                   '-------> checkout ---> payment
//	                                 '-------> shipping
//
// Every call goes through the load balancer, which is where the call graph
// can be observed. A replica has a fixed number of workers and a bounded
// queue, so it can be overloaded; its work is waiting, not computing, so that
// two dozen replicas fit on two cores. What a caller sees tells where the
// trouble is: 500 is the replica's own failure, 502 one of a service that it
// called, 503 a full queue, 504 a deadline.
//
// It guarantees:
//
//  1. A process registers itself in DIR/run when it listens, and ends itself
//     when DIR/lease is gone or old: nothing outlives a controller that does
//     not come back. One whose controller ended before it registered does not
//     register: the next controller would not know what it was started for.
//  2. On SIGTERM a replica leaves the load balancer first and then finishes
//     what it has accepted, for up to 900 ms.
//  3. Demand is a function of simulated time and a seed: a restarted load
//     generator goes on where the curve is, and a controller can compute
//     what another fleet would have needed.
//  4. Images are files (see [PublishImage]); a bad release is an image whose
//     file has a defect. Processes never start from an image without a file.
package shop
