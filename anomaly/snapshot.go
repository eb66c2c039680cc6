package anomaly

import (
	"encoding"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"time"
)

// A snapshot is four bytes of magic, the kind of detector, a version, the
// settings and the state in little endian, and a CRC-32 of it all.
const (
	magic           = "evka"
	kindLevel       = 1
	kindSeasonal    = 2
	kindChangePoint = 3
	version         = 1
)

type encoder struct{ b []byte }

func newEncoder(kind byte) *encoder {
	return &encoder{b: append([]byte(magic), kind, version)}
}

func (e *encoder) u64(v uint64)  { e.b = binary.LittleEndian.AppendUint64(e.b, v) }
func (e *encoder) int(v int)     { e.u64(uint64(int64(v))) }
func (e *encoder) f64(v float64) { e.u64(math.Float64bits(v)) }
func (e *encoder) bool(v bool) {
	if v {
		e.b = append(e.b, 1)
	} else {
		e.b = append(e.b, 0)
	}
}

func (e *encoder) bytes(v []byte) {
	e.int(len(v))
	e.b = append(e.b, v...)
}

func (e *encoder) window(w *window) {
	e.int(w.len())
	for i := range w.len() {
		e.f64(w.at(i))
	}
}

func (e *encoder) ring(r *ring) {
	e.int(len(r.values))
	for k := len(r.values) - 1; k >= 0; k-- {
		e.f64(r.last(k))
	}
}

func (e *encoder) options(o Options) {
	e.int(int(o.Direction))
	e.f64(o.Threshold)
	e.f64(o.MinDeviation)
	e.f64(o.MinRelative)
	for _, v := range []int{o.Window, o.WarmUp, o.Relearn, o.Missing, o.FlatLine} {
		e.int(v)
	}
}

func (e *encoder) vitals(v vitals) {
	e.int(v.missing)
	e.int(v.zeros)
	e.int(v.same)
	e.f64(v.last)
	e.bool(v.varied)
}

func (e *encoder) level(l *Level) {
	e.options(l.opts)
	e.window(&l.w)
	e.ring(&l.recent)
	e.vitals(l.v)
	e.int(l.out)
	e.int(l.run)
}

func (e *encoder) time(t time.Time) {
	e.bool(!t.IsZero())
	e.u64(uint64(t.Unix()))
	e.int(t.Nanosecond())
}

func (e *encoder) done() []byte {
	return binary.LittleEndian.AppendUint32(e.b, crc32.ChecksumIEEE(e.b))
}

// decoder reads what encoder wrote; after the first fault it reads zeros.
type decoder struct {
	b   []byte
	err error
}

func newDecoder(b []byte, kind byte) *decoder {
	d := &decoder{}
	n := len(magic) + 2
	switch {
	case len(b) < n+4 || string(b[:len(magic)]) != magic:
		d.fail("not a snapshot of a detector")
	case b[n-2] != kind:
		d.fail("kind %d is not %d", b[n-2], kind)
	case b[n-1] != version:
		d.fail("version %d is not %d", b[n-1], version)
	case crc32.ChecksumIEEE(b[:len(b)-4]) != binary.LittleEndian.Uint32(b[len(b)-4:]):
		d.fail("checksum does not match")
	default:
		d.b = b[n : len(b)-4]
	}
	return d
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf("%w: %s", ErrSnapshot, fmt.Sprintf(format, args...))
		d.b = nil
	}
}

func (d *decoder) u64() uint64 {
	if len(d.b) < 8 {
		d.fail("cut short")
		return 0
	}
	v := binary.LittleEndian.Uint64(d.b)
	d.b = d.b[8:]
	return v
}

func (d *decoder) f64() float64 { return math.Float64frombits(d.u64()) }

// number is a float that a detector may hold.
func (d *decoder) number() float64 {
	v := d.f64()
	if !(math.Abs(v) <= math.MaxFloat64) {
		d.fail("%v is not a finite number", v)
		return 0
	}
	return v
}

// int reads a whole number in [lo, hi].
func (d *decoder) int(lo, hi int) int {
	v := int64(d.u64())
	if d.err == nil && (v < int64(lo) || v > int64(hi)) {
		d.fail("%d is not in %d..%d", v, lo, hi)
	}
	if d.err != nil {
		return lo
	}
	return int(v)
}

// count reads a counter, which no run of values lets exceed 2^53.
func (d *decoder) count() int { return d.int(0, 1<<53) }

func (d *decoder) bool() bool {
	if len(d.b) < 1 || d.b[0] > 1 {
		d.fail("no truth value")
		return false
	}
	v := d.b[0] == 1
	d.b = d.b[1:]
	return v
}

func (d *decoder) bytes() []byte {
	n := d.int(0, len(d.b))
	if d.err != nil || n > len(d.b) {
		d.fail("cut short")
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) values(limit int) []float64 {
	n := d.int(0, limit)
	if d.err != nil || n > len(d.b)/8 {
		d.fail("cut short")
		return nil
	}
	v := make([]float64, n)
	for i := range v {
		v[i] = d.number()
	}
	return v
}

func (d *decoder) options() Options {
	o := Options{Direction: Direction(d.int(0, int(Down)))}
	o.Threshold, o.MinDeviation, o.MinRelative = d.f64(), d.f64(), d.f64()
	const most = 1 << 53
	o.Window, o.WarmUp = d.int(3, maxWindow), d.int(3, maxWindow)
	o.Relearn, o.Missing, o.FlatLine = d.int(-most, most), d.int(-most, most), d.int(0, most)
	if d.err == nil {
		if r, err := o.resolve(); err != nil || r != o {
			d.fail("settings are impossible")
		}
	}
	return o
}

func (d *decoder) vitals() vitals {
	return vitals{missing: d.count(), zeros: d.count(), same: d.count(), last: d.number(), varied: d.bool()}
}

func (d *decoder) level(l *Level) {
	o := d.options()
	if d.err != nil {
		return
	}
	l.init(o)
	l.w.load(d.values(o.Window))
	for _, v := range d.values(o.Window) {
		l.recent.push(v)
	}
	l.v = d.vitals()
	l.out = d.count()
	l.run = d.int(-1<<53, 1<<53)
}

func (d *decoder) time() time.Time {
	set, sec, nsec := d.bool(), int64(d.u64()), d.int(0, 999_999_999)
	if !set {
		return time.Time{}
	}
	return time.Unix(sec, int64(nsec)).UTC()
}

func (d *decoder) done() error {
	if d.err == nil && len(d.b) > 0 {
		d.fail("%d bytes too many", len(d.b))
	}
	return d.err
}

// MarshalBinary gives a snapshot of settings and state, from which
// UnmarshalBinary goes on bit for bit as l would.
func (l *Level) MarshalBinary() ([]byte, error) {
	if l.opts.Window == 0 {
		o, _ := Options{}.resolve()
		l = &Level{}
		l.init(o)
	}
	e := newEncoder(kindLevel)
	e.level(l)
	return e.done(), nil
}

// UnmarshalBinary takes settings and state from a snapshot. It fails with
// [ErrSnapshot] and then leaves l as it was.
func (l *Level) UnmarshalBinary(snapshot []byte) error {
	d := newDecoder(snapshot, kindLevel)
	var n Level
	d.level(&n)
	if err := d.done(); err != nil {
		return err
	}
	*l = n
	return nil
}

// MarshalBinary gives a snapshot of settings and state, from which
// UnmarshalBinary goes on bit for bit as s would. With a fitted Model it
// fails unless that is an encoding.BinaryMarshaler.
func (s *Seasonal) MarshalBinary() ([]byte, error) {
	if s.level.opts.Window == 0 {
		o, _ := s.opts.resolve()
		s = &Seasonal{}
		s.init(o)
	}
	e := newEncoder(kindSeasonal)
	e.level(&s.level)
	e.u64(uint64(s.opts.Period))
	e.int(s.opts.Buckets)
	for i, v := range s.profile {
		e.f64(v)
		e.int(int(s.periods[i]))
	}
	e.time(s.began)
	e.bool(s.known)
	e.int(s.bucket)
	e.f64(s.sum)
	e.int(s.n)
	e.bool(s.fitted != nil)
	if s.fitted != nil {
		m, ok := s.fitted.(encoding.BinaryMarshaler)
		if !ok {
			return nil, fmt.Errorf("%w: model %T cannot be saved", ErrSnapshot, s.fitted)
		}
		b, err := m.MarshalBinary()
		if err != nil {
			return nil, fmt.Errorf("anomaly: save model: %w", err)
		}
		e.bytes(b)
	}
	return e.done(), nil
}

// UnmarshalBinary takes settings and state from a snapshot; Model and Restore
// stay those of s, and a snapshot with a fitted model needs Restore. It fails
// with [ErrSnapshot], or as Restore does, and then leaves s as it was.
func (s *Seasonal) UnmarshalBinary(snapshot []byte) error {
	d := newDecoder(snapshot, kindSeasonal)
	var level Level
	d.level(&level)
	o := SeasonalOptions{Options: level.opts, Model: s.opts.Model, Restore: s.opts.Restore}
	o.Period = time.Duration(d.u64())
	o.Buckets = d.int(1, maxBuckets)
	if d.err == nil && len(d.b) < 16*o.Buckets {
		d.fail("cut short")
	}
	if d.err != nil {
		return d.err
	}
	if r, err := o.resolve(); err != nil || r.Period != o.Period {
		return fmt.Errorf("%w: settings are impossible", ErrSnapshot)
	}
	var n Seasonal
	n.init(o)
	n.level = level
	for i := range n.profile {
		n.profile[i] = d.number()
		n.periods[i] = uint16(d.int(0, math.MaxUint16))
	}
	n.began, n.known = d.time(), d.bool()
	n.bucket = d.int(-1, o.Buckets-1)
	n.sum, n.n = d.number(), d.count()
	var model []byte
	fitted := d.bool()
	if fitted {
		model = d.bytes()
	}
	if err := d.done(); err != nil {
		return err
	}
	if fitted {
		if o.Restore == nil {
			return fmt.Errorf("%w: it holds a model, and Restore is not set", ErrSnapshot)
		}
		f, err := o.Restore(model)
		if err != nil {
			return fmt.Errorf("anomaly: restore model: %w", err)
		}
		if f == nil {
			return fmt.Errorf("%w: Restore gave no model", ErrSnapshot)
		}
		n.fitted = f
	}
	*s = n
	return nil
}

// MarshalBinary gives a snapshot of settings and state, from which
// UnmarshalBinary goes on bit for bit as c would.
func (c *ChangePoint) MarshalBinary() ([]byte, error) {
	if c.opts.Window == 0 {
		o, _ := ChangePointOptions{}.resolve()
		c = &ChangePoint{}
		c.init(o)
	}
	e := newEncoder(kindChangePoint)
	e.options(c.opts.Options)
	e.f64(c.opts.Drift)
	e.f64(c.opts.Limit)
	e.window(&c.w)
	e.ring(&c.recent)
	e.vitals(c.v)
	e.f64(c.up)
	e.f64(c.down)
	e.int(c.sinceUp)
	e.int(c.sinceDn)
	e.f64(c.sd)
	return e.done(), nil
}

// UnmarshalBinary takes settings and state from a snapshot. It fails with
// [ErrSnapshot] and then leaves c as it was.
func (c *ChangePoint) UnmarshalBinary(snapshot []byte) error {
	d := newDecoder(snapshot, kindChangePoint)
	o := ChangePointOptions{Options: d.options(), Drift: d.f64(), Limit: d.f64()}
	if d.err != nil {
		return d.err
	}
	if r, err := o.resolve(); err != nil || r != o {
		return fmt.Errorf("%w: settings are impossible", ErrSnapshot)
	}
	var n ChangePoint
	n.init(o)
	n.w.load(d.values(o.Window))
	for _, v := range d.values(o.Window) {
		n.recent.push(v)
	}
	n.v = d.vitals()
	n.up, n.down, n.sinceUp, n.sinceDn, n.sd = d.number(), d.number(), d.count(), d.count(), d.number()
	if d.err == nil && n.sd > 0 && n.w.len() == 0 {
		d.fail("a restart without values")
	}
	if err := d.done(); err != nil {
		return err
	}
	*c = n
	return nil
}
