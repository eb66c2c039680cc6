package gitsource

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/object"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// pgp signs and verifies with one key. The commit whose parent is none is the
// people's and needs no signature.
type pgp struct{ key *openpgp.Entity }

func newPGP(t testing.TB) *pgp {
	t.Helper()
	key, err := openpgp.NewEntity("evenkeel", "", "evenkeel@example.org", nil)
	if err != nil {
		t.Fatal(err)
	}
	return &pgp{key}
}

func (p *pgp) Sign(_ context.Context, payload []byte) ([]byte, error) {
	var out bytes.Buffer
	err := openpgp.ArmoredDetachSign(&out, p.key, bytes.NewReader(payload), nil)
	return out.Bytes(), err
}

func (p *pgp) Verify(_ context.Context, _ string, payload, signature []byte) error {
	if !bytes.Contains(payload, []byte("\nparent ")) {
		return nil
	}
	if len(signature) == 0 {
		return errors.New("not signed")
	}
	_, err := openpgp.CheckArmoredDetachedSignature(openpgp.EntityList{p.key}, bytes.NewReader(payload), bytes.NewReader(signature), nil)
	return err
}

func TestWriteIsVerifiedFirst(t *testing.T) {
	p := newPGP(t)
	r, dir := newRepo(t, map[string]string{"cart.yaml": deployment("cart", 2, "cart:1")}, Options{Verifier: p})
	was := fetch(t, r)
	for name, write := range map[string]func() (reconcile.Commit, error){
		"write": func() (reconcile.Commit, error) { return r.Write(t.Context(), setReplicas("s.1", "cart", 3)) },
		"commit": func() (reconcile.Commit, error) {
			return r.Commit(t.Context(), CommitRequest{Message: "x", Files: map[string][]byte{"x": nil, "y": {}}})
		},
	} {
		_, err := write()
		if !errors.Is(err, reconcile.ErrForbidden) || !strings.Contains(err.Error(), "Options.Signer") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if now := fetch(t, r); now != was {
		t.Error("the branch moved")
	}
	if now := fetch(t, open(t, Options{URL: dir, Verifier: p})); now.Revision() != was.Revision() {
		t.Error("the branch moved for others")
	}
}

func TestSigner(t *testing.T) {
	p := newPGP(t)
	r, dir := newRepo(t, map[string]string{"cart.yaml": deployment("cart", 2, "cart:1")}, Options{Verifier: p, Signer: p})
	for n := range 3 { // our own commits are what the next is made on
		if _, err := r.Write(t.Context(), setReplicas("s."+string(rune('1'+n)), "cart", 3+n)); err != nil {
			t.Fatal(err)
		}
	}
	h := plumbing.NewHash(fetch(t, open(t, Options{URL: dir, Verifier: p})).Revision())

	// Others find it where Git has it.
	obj, err := r.store.EncodedObject(plumbing.CommitObject, h)
	if err != nil {
		t.Fatal(err)
	}
	var c object.Commit
	if err := c.Decode(obj); err != nil {
		t.Fatal(err)
	}
	var key bytes.Buffer
	w, err := armor.Encode(&key, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(p.key.Serialize(w), w.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Verify(key.String()); err != nil {
		t.Errorf("go-git does not accept the signature: %v", err)
	}
	if _, err := exec.LookPath("git"); err == nil {
		runGit(t, dir, "fsck", "--strict", "--full")
		text := runGit(t, dir, "cat-file", "commit", h.String())
		if !strings.Contains(text, "\ngpgsig -----BEGIN PGP SIGNATURE-----\n \n ") || !strings.Contains(text, "\n -----END PGP SIGNATURE-----\n\nScale cart to 5\n") {
			t.Errorf("git has:\n%s", text)
		}
		if got := runGit(t, dir, "log", "-1", "--format=%B", h.String()); !strings.HasPrefix(got, "Scale cart to 5\n") {
			t.Errorf("git reads the message as %q", got)
		}
	}
}

type signFunc func([]byte) ([]byte, error)

func (f signFunc) Sign(_ context.Context, payload []byte) ([]byte, error) { return f(payload) }

type verifyFunc func(payload, signature []byte) error

func (f verifyFunc) Verify(_ context.Context, _ string, payload, signature []byte) error {
	return f(payload, signature)
}

func TestSignature(t *testing.T) {
	broken := errors.New("no key at hand")
	for name, tc := range map[string]struct {
		gives string
		err   error
		want  string // what a Verifier sees
		fails error
	}{
		"plain":         {gives: "-----BEGIN X-----\n\nabc\n=de\n-----END X-----\n", want: "-----BEGIN X-----\n\nabc\n=de\n-----END X-----\n"},
		"no end":        {gives: "a\nb", want: "a\nb\n"},
		"many ends":     {gives: "\na\nb\n\n\n", want: "a\nb\n"},
		"windows":       {gives: "a\r\n\r\nb\r\n", want: "a\n\nb\n"},
		"header inside": {gives: "a\nparent x\ngpgsig y\n\nz", want: "a\nparent x\ngpgsig y\n\nz\n"},
		"empty":         {gives: "\n", fails: reconcile.ErrInvalid},
		"zero byte":     {gives: "a\x00b", fails: reconcile.ErrInvalid},
		"error":         {err: broken, fails: broken},
	} {
		t.Run(name, func(t *testing.T) {
			var signed, payload, signature []byte
			r, dir := newRepo(t, map[string]string{"cart.yaml": deployment("cart", 2, "cart:1")}, Options{
				Signer: signFunc(func(p []byte) ([]byte, error) {
					signed = bytes.Clone(p)
					return []byte(tc.gives), tc.err
				}),
			})
			_, err := r.Write(t.Context(), setReplicas("s.1", "cart", 3))
			if !errors.Is(err, tc.fails) || (err == nil) != (tc.fails == nil) {
				t.Fatal(err)
			}
			if tc.fails != nil {
				return
			}
			fetch(t, open(t, Options{URL: dir, Verifier: verifyFunc(func(p, s []byte) error {
				payload, signature = p, s
				return nil
			})}))
			if !bytes.Equal(payload, signed) {
				t.Errorf("signed\n%s\nverified\n%s", signed, payload)
			}
			if string(signature) != tc.want {
				t.Errorf("signature %q, want %q", signature, tc.want)
			}
		})
	}
}

func TestPackHasEachObjectOnce(t *testing.T) {
	local, dir := newRepo(t, map[string]string{"cart.yaml": deployment("cart", 1, "cart:1")}, Options{})
	url, ca := serve(t, filepath.Dir(dir), "")
	runGit(t, dir, "config", "receive.fsckObjects", "true")
	runGit(t, dir, "config", "http.receivepack", "true")
	r := open(t, Options{URL: url + "/repo.git", CABundle: ca})
	c := push(t, r, "Same content", map[string]string{"x/a": "same\n", "x/b": "same\n", "y/a": "same\n", "y/b": "same\n"})
	if got := fetch(t, local).Revision(); got != c.Revision {
		t.Errorf("the server has %s", got)
	}
	b := newBuilder(r)
	files := map[string]blobEdit{"p/a": {data: []byte("new\n")}, "q/a": {data: []byte("new\n")}}
	if _, err := b.tree(plumbing.ZeroHash, files, ""); err != nil || len(b.made) != 3 {
		t.Errorf("%d objects for a file, its directory and the root: %v", len(b.made), err)
	}
}
