package remediate

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"iter"
	"os"
	"path/filepath"
	"sync"
)

// The on-disk format is described in docs/format/journal.md.
const (
	journalFile  = "00000000000000000001.journal" // named by its first record
	journalLock  = "LOCK"
	journalMagic = "evkjrnl1"
	frameHeader  = 4 + 4 + 4 + sha256.Size
	maxPayload   = 16 << 20
	sector       = 512
)

// FileJournalOptions are for [OpenFileJournal]; the zero value is ready.
type FileJournalOptions struct {
	// NoSync leaves it to the operating system when records reach the disk:
	// they survive the end of the process, not of the machine.
	NoSync bool
}

// FileJournal is a [Journal] in one append-only file. Each record carries its
// length, a CRC-32C and the SHA-256 of the record before it, so that a change
// of any single byte is found. Make it with [OpenFileJournal].
type FileJournal struct {
	path string
	opts FileJournalOptions
	torn int64

	mu     sync.Mutex
	file   *os.File
	lock   io.Closer
	size   int64
	seq    uint64
	head   [sha256.Size]byte
	broken error
}

// CorruptError says where a journal was changed after it was written, or
// damaged by the disk. Nothing was dropped.
type CorruptError struct {
	// Path is the file, Offset the byte at which the record begins, Record
	// its number from 1; 0 is the file's header.
	Path   string
	Offset int64
	Record uint64
	// Why is what does not add up.
	Why string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("remediate: journal %s: record %d at offset %d: %s", e.Path, e.Record, e.Offset, e.Why)
}

// Is makes errors.Is(err, ErrCorrupt) true.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

// OpenFileJournal opens the journal in a directory, which it makes if need be,
// checks every record in it, and cuts off a last record that a crash left
// incomplete (see [FileJournal.Torn]).
//
// Errors: [ErrLocked] while another process or FileJournal has it open;
// [*CorruptError] for anything else that does not add up; or the file
// system's.
func OpenFileJournal(dir string, o FileJournalOptions) (*FileJournal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("remediate: journal: %w", err)
	}
	lock, err := lockFile(filepath.Join(dir, journalLock))
	if err != nil {
		return nil, fmt.Errorf("remediate: journal %s: %w", dir, err)
	}
	j := &FileJournal{path: filepath.Join(dir, journalFile), opts: o, lock: lock}
	if err := j.open(dir); err != nil {
		if j.file != nil {
			j.file.Close()
		}
		lock.Close()
		return nil, err
	}
	return j, nil
}

func (j *FileJournal) open(dir string) (err error) {
	wrap := func(err error) error { return fmt.Errorf("remediate: journal: %w", err) }
	if j.file, err = os.OpenFile(j.path, os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return wrap(err)
	}
	st, err := j.file.Stat()
	if err != nil {
		return wrap(err)
	}
	s := newScanner(j.path, j.file, st.Size())
	for s.next() {
	}
	if s.err != nil {
		return s.err
	}
	j.size, j.seq, j.head, j.torn = s.off, s.seq, s.prev, st.Size()-s.off
	if j.torn > 0 {
		if err := j.file.Truncate(j.size); err != nil {
			return wrap(err)
		}
	}
	if j.size == 0 {
		if _, err := j.file.WriteAt([]byte(journalMagic), 0); err != nil {
			return wrap(err)
		}
		j.size = int64(len(journalMagic))
		j.head = sha256.Sum256([]byte(journalMagic))
	}
	if j.opts.NoSync {
		return nil
	}
	if err := j.file.Sync(); err != nil {
		return wrap(err)
	}
	if err := syncDir(dir); err != nil {
		return wrap(err)
	}
	return nil
}

// Torn is the number of bytes of an incomplete last record that were cut off
// when the journal was opened. Such a record was never acknowledged.
func (j *FileJournal) Torn() int64 { return j.torn }

// Head is the number of the last record and the hash over everything up to
// it. Two journals with the same head are the same; whoever keeps a head
// elsewhere can later tell that the past was not rewritten.
func (j *FileJournal) Head() (seq uint64, hash [sha256.Size]byte) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.seq, j.head
}

// Append writes the records with one write and one fsync. After an fsync that
// failed nobody knows what the disk holds, so every later Append fails too;
// after a write that failed the file is cut back to what it was.
func (j *FileJournal) Append(ctx context.Context, after uint64, recs ...Record) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.broken != nil {
		return j.broken
	}
	if after != j.seq {
		return conflict(after, j.seq)
	}
	if len(recs) == 0 {
		return nil
	}
	var buf bytes.Buffer
	seq, head := j.seq, j.head
	for _, r := range recs {
		seq++
		r.Seq = seq
		payload, err := encodeRecord(r)
		if err != nil {
			return err
		}
		if len(payload) > maxPayload {
			return fmt.Errorf("remediate: journal: record %d has %d bytes, at most %d: %w", seq, len(payload), maxPayload, ErrInvalid)
		}
		head = appendFrame(&buf, head, payload)
	}
	if _, err := j.file.WriteAt(buf.Bytes(), j.size); err != nil {
		if terr := j.file.Truncate(j.size); terr != nil {
			j.broken = fmt.Errorf("remediate: journal: cutting back a failed write: %w", terr)
		}
		return fmt.Errorf("remediate: journal: %w", err)
	}
	if !j.opts.NoSync {
		if err := j.file.Sync(); err != nil {
			j.broken = fmt.Errorf("remediate: journal: %w", err)
			return j.broken
		}
	}
	j.size += int64(buf.Len())
	j.seq, j.head = seq, head
	return nil
}

// Read checks and yields the records from number from on.
func (j *FileJournal) Read(ctx context.Context, from uint64) iter.Seq2[Record, error] {
	j.mu.Lock()
	size, broken := j.size, j.broken
	j.mu.Unlock()
	return func(yield func(Record, error) bool) {
		if errors.Is(broken, ErrClosed) {
			yield(Record{}, broken)
			return
		}
		f, err := os.Open(j.path)
		if err != nil {
			yield(Record{}, fmt.Errorf("remediate: journal: %w", err))
			return
		}
		defer f.Close()
		s := newScanner(j.path, f, size)
		for s.next() {
			if err := ctx.Err(); err != nil {
				yield(Record{}, err)
				return
			}
			if s.seq < from {
				continue
			}
			r, err := s.record()
			if !yield(r, err) || err != nil {
				return
			}
		}
		if s.err == nil && s.off < size {
			s.corrupt("it ends early")
		}
		if s.err != nil {
			yield(Record{}, s.err)
		}
	}
}

// Close releases the file and the lock. Later calls but Close fail with
// [ErrClosed].
func (j *FileJournal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if errors.Is(j.broken, ErrClosed) {
		return nil
	}
	j.broken = fmt.Errorf("remediate: journal %s: %w", j.path, ErrClosed)
	return errors.Join(j.file.Close(), j.lock.Close())
}

// castagnoli is read-only.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendFrame writes one record's frame and gives its hash.
func appendFrame(buf *bytes.Buffer, prev [sha256.Size]byte, payload []byte) [sha256.Size]byte {
	var h [frameHeader]byte
	binary.LittleEndian.PutUint32(h[0:], uint32(len(payload)))
	crc := crc32.Update(crc32.Checksum(prev[:], castagnoli), castagnoli, payload)
	binary.LittleEndian.PutUint32(h[4:], crc)
	binary.LittleEndian.PutUint32(h[8:], crc32.Checksum(h[:8], castagnoli))
	copy(h[12:], prev[:])
	start := buf.Len()
	buf.Write(h[:])
	buf.Write(payload)
	return sha256.Sum256(buf.Bytes()[start:])
}

// scanner reads the frames of a file of a known size.
type scanner struct {
	path    string
	in      *bufio.Reader
	size    int64
	off     int64 // of the next frame
	at      int64 // of the present frame
	seq     uint64
	prev    [sha256.Size]byte
	payload []byte
	err     error
}

func newScanner(path string, f io.ReaderAt, size int64) *scanner {
	return &scanner{path: path, in: bufio.NewReaderSize(io.NewSectionReader(f, 0, size), 1<<16), size: size}
}

func (s *scanner) corrupt(why string) bool {
	s.err = &CorruptError{Path: s.path, Offset: s.off, Record: s.seq + 1, Why: why}
	return false
}

func (s *scanner) read(b []byte) bool {
	if _, err := io.ReadFull(s.in, b); err != nil {
		s.err = fmt.Errorf("remediate: journal %s: reading at offset %d: %w", s.path, s.off, err)
		return false
	}
	return true
}

// next moves to the next frame. It is false at the end and before an
// incomplete last frame, where err is nil, and on an error. Afterwards off is
// the end of what is sound.
func (s *scanner) next() bool {
	if s.err != nil {
		return false
	}
	if s.off == 0 && !s.magic() {
		return false
	}
	rest := s.size - s.off
	if rest < frameHeader {
		return false
	}
	var h [frameHeader]byte
	if !s.read(h[:]) {
		return false
	}
	if crc32.Checksum(h[:8], castagnoli) != binary.LittleEndian.Uint32(h[8:]) {
		// A crash may leave a file that has grown and was not yet filled.
		if h == [frameHeader]byte{} && s.zeros() {
			return false
		}
		return s.corrupt("the checksum of its length is wrong")
	}
	n := int64(binary.LittleEndian.Uint32(h[:4]))
	if n > maxPayload {
		return s.corrupt(fmt.Sprintf("it has %d bytes, at most %d", n, maxPayload))
	}
	if rest < frameHeader+n {
		return false
	}
	s.payload = make([]byte, n)
	if !s.read(s.payload) {
		return false
	}
	if crc32.Update(crc32.Checksum(h[12:], castagnoli), castagnoli, s.payload) != binary.LittleEndian.Uint32(h[4:]) {
		if rest == frameHeader+n && s.unwritten() {
			return false
		}
		return s.corrupt("its checksum is wrong")
	}
	if !bytes.Equal(h[12:], s.prev[:]) {
		return s.corrupt("it does not follow on the record before it")
	}
	sum := sha256.New()
	sum.Write(h[:])
	sum.Write(s.payload)
	sum.Sum(s.prev[:0])
	s.at = s.off
	s.off += frameHeader + n
	s.seq++
	return true
}

// magic reads the file's header. A part of it alone is an incomplete file.
func (s *scanner) magic() bool {
	b := make([]byte, min(s.size, int64(len(journalMagic))))
	if !s.read(b) {
		return false
	}
	if len(b) < len(journalMagic) {
		if string(b) == journalMagic[:len(b)] || len(bytes.Trim(b, "\x00")) == 0 {
			return false
		}
		s.err = &CorruptError{Path: s.path, Why: "this is not a journal"}
		return false
	}
	if string(b) != journalMagic {
		s.err = &CorruptError{Path: s.path, Why: "this is not a journal, or one of another version"}
		return false
	}
	s.off = int64(len(journalMagic))
	s.prev = sha256.Sum256(b)
	return true
}

// zeros tells whether the rest of the file is all zero bytes.
func (s *scanner) zeros() bool {
	for {
		b, err := s.in.ReadByte()
		if err != nil {
			return err == io.EOF
		}
		if b != 0 {
			return false
		}
	}
}

// unwritten tells whether the last payload ends in zero bytes from a sector's
// beginning on: JSON has none, so those sectors were never written. A run that
// is so short that a flipped byte could look like it does not count.
func (s *scanner) unwritten() bool {
	n := len(s.payload)
	run := n - len(bytes.TrimRight(s.payload, "\x00"))
	if run == n && n >= 8 {
		return true
	}
	begin := s.off + frameHeader + int64(n-run)
	aligned := (begin + sector - 1) / sector * sector
	return s.size-aligned >= 8
}

// record decodes the present frame.
func (s *scanner) record() (Record, error) {
	var r Record
	err := r.decode(s.payload)
	if err == nil && r.Seq != s.seq {
		err = fmt.Errorf("it calls itself record %d", r.Seq)
	}
	if err != nil {
		return Record{}, &CorruptError{Path: s.path, Offset: s.at, Record: s.seq, Why: err.Error()}
	}
	return r, nil
}

// syncDir makes a new file's name durable. Windows cannot, and need not.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && os.PathSeparator != '\\' {
		return err
	}
	return nil
}
