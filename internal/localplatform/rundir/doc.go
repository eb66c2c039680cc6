// Package rundir is the directory through which the processes of a local
// platform find each other.
//
// Nothing in it is shared memory or a socket: every process writes one small
// file about itself, and whoever wants to know what runs reads them. So a
// controller that was killed finds its processes again, and a process whose
// controller is gone notices.
//
//	DIR/lock              held by the one controller
//	DIR/lease             touched by the controller; processes end when it is old
//	DIR/run/<id>.json     one file for each live process: an Entry
//	DIR/registry/…        images, see package shop
//	DIR/live, DIR/actions the controller's own records
//
// It guarantees:
//
//  1. Files appear whole: they are written beside and renamed.
//  2. A process is named by its pid and its start time, so that a pid that
//     was given to another process is never taken for it, or signalled.
//  3. One controller at a time: [Dir.Lock] is released by the kernel when the
//     controller dies, however it dies.
//
// Files that cannot be read as an Entry are skipped: they are not of a
// process of this platform. Start times and memory are read from /proc; on
// systems without it a process is named by its pid alone.
package rundir
