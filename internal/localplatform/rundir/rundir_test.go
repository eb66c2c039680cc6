package rundir

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func dir(t *testing.T) Dir {
	t.Helper()
	d := Dir(t.TempDir())
	if err := d.Create(); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestEntries(t *testing.T) {
	d := dir(t)
	r := &Reader{Dir: d}
	a := Entry{ID: "cart-1", Role: RoleService, Service: "cart", PID: os.Getpid(), Port: 80, Started: time.Unix(1, 0).UTC()}
	b := a
	b.ID = "cart-2"
	for _, e := range []Entry{b, a} {
		if err := d.Register(e); err != nil {
			t.Fatal(err)
		}
	}
	// What is not an entry is not a process.
	for name, data := range map[string]string{"x.json": "{", "y.json": `{"id":"z"}`, ".tmp-1": "", "cart-3.json": `{"id":"cart-1","role":"service","pid":9}`} {
		if err := os.WriteFile(d.Path("run", name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		got, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]Entry{a, b}, got); diff != "" {
			t.Error(diff)
		}
	}
	for range 2 {
		if err := d.Unregister("cart-1"); err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := r.Read(); len(got) != 1 {
		t.Errorf("after unregister: %v", got)
	}
}

func TestAliveTellsReusedPids(t *testing.T) {
	ticks, err := StartTicks(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !Alive(os.Getpid(), ticks) {
		t.Error("this process is not alive")
	}
	if ticks != 0 && Alive(os.Getpid(), ticks+1) {
		t.Error("a process of another start time passes for this one")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if Alive(pid, 0) {
		t.Error("a process that has ended is alive")
	}
	if b, err := ResidentBytes(); err != nil || b < 1<<20 {
		t.Errorf("resident %d, %v", b, err)
	}
}

func TestLockAndLease(t *testing.T) {
	d := dir(t)
	release, err := d.Lock()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Lock(); !errors.Is(err, ErrLocked) {
		t.Errorf("second lock: %v", err)
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	if release, err = d.Lock(); err != nil {
		t.Fatal(err)
	}
	release()

	if _, err := d.LeaseAge(time.Now()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no lease: %v", err)
	}
	now := time.Unix(1000, 0)
	for range 2 {
		if err := d.TouchLease(now); err != nil { // makes it, then renews it
			t.Fatal(err)
		}
	}
	if age, err := d.LeaseAge(now.Add(time.Minute)); err != nil || age != time.Minute {
		t.Errorf("age %v, %v", age, err)
	}
}

func FuzzParseEntry(f *testing.F) {
	f.Add([]byte(`{"id":"cart-1","role":"service","pid":12,"port":80}`))
	f.Add([]byte(`{"id":"../x","role":"service","pid":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEntry(b)
		if err == nil && (e.PID <= 1 || e.ID == "" || e.Role == "") {
			t.Errorf("%+v", e)
		}
	})
}
