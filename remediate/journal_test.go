package remediate

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/evenkeel-go/evenkeel/anomaly/rootcause"
	"github.com/evenkeel-go/evenkeel/reconcile"
)

func openJournal(t testing.TB, dir string) *FileJournal {
	t.Helper()
	j, err := OpenFileJournal(dir, FileJournalOptions{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

func readAll(t testing.TB, j Journal, from uint64) []Record {
	t.Helper()
	var out []Record
	for r, err := range j.Read(t.Context(), from) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	return out
}

func sampleRecords() []Record {
	trig, rep := incident("inc-1", "checkout", rootcause.RollBack)
	return []Record{
		{Time: epoch, Kind: CaseOpened, Case: "inc-1", Trigger: &trig, Report: rep},
		{Time: epoch, Kind: ActionPlanned, Case: "inc-1", Action: "inc-1.1", Operation: &Operation{
			Target: Target{Service: "checkout"}, From: int64(2), Edit: &reconcile.Edit{Key: deployment("checkout", 2).Key, Path: "spec.replicas", Value: int64(3)}}},
		{Time: epoch, Kind: Paused, Scope: Everything, By: "ada", Why: "release day"},
	}
}

// Both journals keep what they are given, numbered, with the types of values.
func TestJournals(t *testing.T) {
	for name, j := range map[string]Journal{"memory": NewMemoryJournal(), "file": openJournal(t, t.TempDir())} {
		t.Run(name, func(t *testing.T) {
			in := sampleRecords()
			if err := j.Append(t.Context(), 0, in[0]); err != nil {
				t.Fatal(err)
			}
			if err := j.Append(t.Context(), 1, in[1:]...); err != nil {
				t.Fatal(err)
			}
			for i := range in {
				in[i].Seq = uint64(i + 1)
			}
			if d := gocmp.Diff(in, readAll(t, j, 0)); d != "" {
				t.Error(d)
			}
			if d := gocmp.Diff(in[2:], readAll(t, j, 3)); d != "" {
				t.Error(d)
			}
			if got := readAll(t, j, 4); got != nil {
				t.Errorf("past the end: %v", got)
			}
			for _, after := range []uint64{0, 2, 4} {
				if err := j.Append(t.Context(), after, in[0]); !errors.Is(err, ErrConflict) {
					t.Errorf("Append behind %d of 3 = %v", after, err)
				}
			}
			if got := readAll(t, j, 1); len(got) != 3 {
				t.Errorf("%d records after refused ones", len(got))
			}
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			if err := j.Append(ended, 3, in[0]); !errors.Is(err, context.Canceled) {
				t.Errorf("Append with an ended ctx = %v", err)
			}
			for _, err := range j.Read(ended, 1) {
				if !errors.Is(err, context.Canceled) {
					t.Errorf("Read with an ended ctx = %v", err)
				}
			}
		})
	}
}

func TestFileJournalReopen(t *testing.T) {
	dir := t.TempDir()
	j := openJournal(t, dir)
	if err := j.Append(t.Context(), 0, sampleRecords()...); err != nil {
		t.Fatal(err)
	}
	seq, head := j.Head()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if err := j.Append(t.Context(), 3, Record{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Append after Close = %v", err)
	}
	if err := j.Close(); err != nil {
		t.Errorf("second Close = %v", err)
	}
	j = openJournal(t, dir)
	if s, h := j.Head(); s != seq || h != head || j.Torn() != 0 {
		t.Errorf("head moved: %d %x, torn %d", s, h, j.Torn())
	}
	if err := j.Append(t.Context(), 3, Record{Kind: Resumed, Scope: Everything}); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, j, 1); len(got) != 4 || got[3].Seq != 4 {
		t.Errorf("%d records", len(got))
	}
}

// A second opener is refused, in this process and in another.
func TestFileJournalLocked(t *testing.T) {
	if dir := os.Getenv("REMEDIATE_TEST_LOCKED"); dir != "" {
		if _, err := OpenFileJournal(dir, FileJournalOptions{}); !errors.Is(err, ErrLocked) {
			t.Fatalf("other process: %v", err)
		}
		return
	}
	dir := t.TempDir()
	j := openJournal(t, dir)
	if _, err := OpenFileJournal(dir, FileJournalOptions{}); !errors.Is(err, ErrLocked) {
		t.Errorf("same process: %v", err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestFileJournalLocked$")
	cmd.Env = append(os.Environ(), "REMEDIATE_TEST_LOCKED="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("other process: %v\n%s", err, out)
	}
	j.Close()
	openJournal(t, dir)
}

// writtenJournal gives the bytes of a journal with some records, and the
// offsets at which its frames end.
func writtenJournal(t testing.TB) (data []byte, ends []int) {
	dir := t.TempDir()
	j := openJournal(t, dir)
	ends = append(ends, len(journalMagic))
	for i, r := range sampleRecords() {
		if err := j.Append(t.Context(), uint64(i), r); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, int(j.size))
	}
	j.Close()
	data, err := os.ReadFile(filepath.Join(dir, journalFile))
	if err != nil {
		t.Fatal(err)
	}
	return data, ends
}

func openBytes(t testing.TB, data []byte) (*FileJournal, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, journalFile), data, 0o600); err != nil {
		t.Fatal(err)
	}
	j, err := OpenFileJournal(dir, FileJournalOptions{NoSync: true})
	if err == nil {
		t.Cleanup(func() { j.Close() })
	}
	return j, err
}

// A journal that was cut anywhere opens with the records that are whole, and
// goes on from there.
func TestFileJournalTorn(t *testing.T) {
	data, ends := writtenJournal(t)
	for n := 0; n <= len(data); n += 1 + n%11 {
		j, err := openBytes(t, data[:n])
		if err != nil {
			t.Fatalf("cut at %d: %v", n, err)
		}
		want, end := 0, 0
		for i, e := range ends {
			if e <= n {
				want, end = i, e
			}
		}
		if got := readAll(t, j, 1); len(got) != want || j.Torn() != int64(n-end) {
			t.Fatalf("cut at %d: %d records, torn %d; want %d, %d", n, len(got), j.Torn(), want, n-end)
		}
		if err := j.Append(t.Context(), uint64(want), Record{Kind: Resumed, Scope: Everything}); err != nil {
			t.Fatal(err)
		}
		if got := readAll(t, j, 1); len(got) != want+1 {
			t.Fatalf("cut at %d: %d records after one more", n, len(got))
		}
		j.Close()
	}
}

// Every single flipped byte is found, with the offset of its record.
func TestFileJournalFlippedByte(t *testing.T) {
	data, ends := writtenJournal(t)
	record := 0
	for i := range data {
		for record < len(ends) && i >= ends[record] {
			record++
		}
		for _, mask := range []byte{0x01, 0x80, 0xff, data[i]} {
			if mask == 0 {
				continue
			}
			bad := bytes.Clone(data)
			bad[i] ^= mask
			s := newScanner("flipped", bytes.NewReader(bad), int64(len(bad)))
			for s.next() {
			}
			err := s.err
			var ce *CorruptError
			if !errors.As(err, &ce) || !errors.Is(err, ErrCorrupt) {
				t.Fatalf("byte %d ^ %#x: %v", i, mask, err)
			}
			begin := int64(0)
			if record > 0 {
				begin = int64(ends[record-1])
			}
			if ce.Offset != begin {
				t.Fatalf("byte %d: said to be at offset %d, want %d", i, ce.Offset, begin)
			}
		}
	}
}

// A file that grew and was not filled before the machine died is torn; records
// that are swapped, dropped or repeated are corrupt.
func TestFileJournalMore(t *testing.T) {
	data, ends := writtenJournal(t)
	part := func(i int) []byte { return data[ends[i-1]:ends[i]] }
	var last bytes.Buffer
	appendFrame(&last, sha256.Sum256(data[ends[2]:ends[3]]), bytes.Repeat([]byte("x"), 4*sector))
	long := slicesConcat(data, last.Bytes())
	unwritten, hole := bytes.Clone(long), bytes.Clone(long)
	clear(unwritten[len(long)-len(long)%sector-sector:])
	clear(hole[len(long)-len(long)%sector-sector : len(long)-9])
	tests := []struct {
		name string
		data []byte
		want int // records, or -1 for corrupt
	}{
		{"zeros after the end", append(bytes.Clone(data), make([]byte, 700)...), 3},
		{"only zeros", make([]byte, 5), 0},
		{"last sectors unwritten", unwritten, 3},
		{"a hole in the last record", hole, -1},
		{"swapped", slicesConcat(data[:ends[0]], part(2), part(1)), -1},
		{"dropped", slicesConcat(data[:ends[0]], part(2)), -1},
		{"repeated", slicesConcat(data[:ends[1]], part(1)), -1},
		{"garbage after the end", append(bytes.Clone(data), bytes.Repeat([]byte("x"), 100)...), -1},
		{"not a journal", []byte("hello, world"), -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			j, err := openBytes(t, tt.data)
			if tt.want < 0 {
				if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "offset") {
					t.Fatalf("err = %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := readAll(t, j, 1); len(got) != tt.want {
				t.Errorf("%d records, want %d", len(got), tt.want)
			}
		})
	}
}

func slicesConcat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func FuzzFileJournal(f *testing.F) {
	data, ends := writtenJournal(f)
	f.Add(data)
	f.Add(data[:ends[2]-3])
	f.Add([]byte(journalMagic))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newScanner("fuzz", bytes.NewReader(data), int64(len(data)))
		n := 0
		for s.next() {
			if _, err := s.record(); err != nil && !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			n++
		}
		if s.err == nil && s.off > int64(len(data)) {
			t.Fatalf("sound up to %d of %d bytes", s.off, len(data))
		}
		// What is sound stays sound, alone.
		again := newScanner("fuzz", bytes.NewReader(data[:s.off]), s.off)
		for again.next() {
			n--
		}
		if again.err != nil || n != 0 {
			t.Fatalf("the sound part differs by %d records, %v", n, again.err)
		}
	})
}

func FuzzRecord(f *testing.F) {
	for _, r := range sampleRecords() {
		b, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"kind":"ActionHeld","case":"inc-1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Record
		if err := r.UnmarshalJSON(b); err != nil {
			return
		}
		// No record, however odd, makes the fold panic.
		s := newState()
		trig, rep := incident(r.Case, "checkout", rootcause.RollBack)
		pb := DefaultPlaybooks()[0]
		if r.Case != "" {
			if err := s.apply(Record{Kind: CaseOpened, Case: r.Case, Trigger: &trig, Report: rep, Playbook: &pb}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.apply(r); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
	})
}

func BenchmarkFileJournalAppend(b *testing.B) {
	for name, o := range map[string]FileJournalOptions{"fsync": {}, "nosync": {NoSync: true}} {
		b.Run(name, func(b *testing.B) {
			j, err := OpenFileJournal(b.TempDir(), o)
			if err != nil {
				b.Fatal(err)
			}
			defer j.Close()
			r := sampleRecords()[1]
			b.ReportAllocs()
			for after := uint64(0); b.Loop(); after++ {
				if err := j.Append(b.Context(), after, r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
