// Package fault lets the fault bench break this program from inside: it dies at a
// named point, leaves a guard out, or waits less long. Only a build with the tag
// "faults" can be told to; in any other every function here does nothing, and the
// compiler leaves it out.
//
// With the tag, the environment of the process says what to do:
//
//	FAULT_POINTS   point=action@pass, several separated by ";". A point may be
//	               followed by "/key", which has to be equal: worker.render/a@b.c.
//	               Actions: kill (SIGKILL to itself), stop (SIGSTOP), abort (a fatal
//	               error of the Go runtime), hang (that goroutine, for ever) and a
//	               duration such as 2s, which is waited. The pass counts from 1.
//	               At a point within something written, kill%40 writes two fifths
//	               of it first.
//	FAULT_OFF      names of guards to leave out, separated by ";"
//	FAULT_SCALE    waits that are minutes long are divided by this number
//	FAULT_DNS      host:port of the name server to ask instead of the system's
//	FAULT_COUNT    if not empty, each SIGUSR1 is answered with the number of goroutines
//
// What is done is told on standard error first. A wrong setting ends the process:
// a fault that does not happen must not look like one that did no harm.
package fault
