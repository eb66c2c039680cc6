// Package reconcile makes what runs equal to what Git declares.
package reconcile
