package gitsource

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

// serve gives a directory of repositories over https with git http-backend,
// and the certificate to trust.
func serve(t testing.TB, root, password string) (url string, ca []byte) {
	t.Helper()
	exe, err := exec.LookPath("git")
	if err != nil {
		t.Skip("git is not installed")
	}
	backend := &cgi.Handler{
		Path: exe, Args: []string{"http-backend"},
		Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=dev", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*"},
	}
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if password != "" {
			if _, p, _ := req.BasicAuth(); p != password {
				w.Header().Set("WWW-Authenticate", "Basic")
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
		}
		// CGI hands the body on only with its length.
		if req.ContentLength < 0 {
			w.WriteHeader(http.StatusLengthRequired)
			return
		}
		backend.ServeHTTP(w, req)
	}))
	t.Cleanup(srv.Close)
	ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw})
	return srv.URL, ca
}

func TestHTTPS(t *testing.T) {
	local, dir := newRepo(t, map[string]string{"cart.yaml": deployment("cart", 1, "cart:1"), "pay.yaml": deployment("pay", 1, "pay:1")}, Options{})
	url, ca := serve(t, filepath.Dir(dir), "secret")
	opts := Options{URL: url + "/repo.git", Auth: TokenAuth("secret"), CABundle: ca}

	t.Run("open", func(t *testing.T) {
		for name, tc := range map[string]struct {
			change func(*Options)
			want   error
		}{
			"no password":   {func(o *Options) { o.Auth = nil }, reconcile.ErrForbidden},
			"bad password":  {func(o *Options) { o.Auth = BasicAuth("a", "b") }, reconcile.ErrForbidden},
			"no repository": {func(o *Options) { o.URL += "x" }, reconcile.ErrNotFound},
			"no branch":     {func(o *Options) { o.Reference = "nope" }, reconcile.ErrNotFound},
		} {
			o := opts
			tc.change(&o)
			if _, err := Open(t.Context(), o); !errors.Is(err, tc.want) {
				t.Errorf("%s: %v", name, err)
			}
		}
		o := opts
		o.CABundle = nil
		if _, err := Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("unknown certificate: %v", err)
		}
	})

	t.Run("fetch and write", func(t *testing.T) {
		for _, clone := range []string{"", filepath.Join(t.TempDir(), "clone")} {
			o := opts
			o.Dir = clone
			r := open(t, o)
			s := fetch(t, r)
			if s.Len() != 2 || fetch(t, r) != s {
				t.Fatal("bad state")
			}
			id := "scale-" + filepath.Base(clone)
			n := 2 + len(id)
			// Somebody else is faster between our fetch and our push.
			push(t, local, "Other", map[string]string{"pay.yaml": deployment("pay", n, "pay:1")})
			c, err := r.Write(t.Context(), setReplicas(id, "cart", n))
			if err != nil {
				t.Fatal(err)
			}
			again, err := r.Write(t.Context(), setReplicas(id, "cart", 99))
			if err != nil || again.Revision != c.Revision {
				t.Fatal(again, err)
			}
			s = fetch(t, r)
			if s.Revision() != c.Revision || field(t, s, dep("cart"), "spec.replicas") != int64(n) || field(t, s, dep("pay"), "spec.replicas") != int64(n) {
				t.Error("the write is not in the state")
			}
			if got := fetch(t, local).Revision(); got != c.Revision {
				t.Errorf("the server has %s", got)
			}
		}
		// A clone that is there already.
		again := open(t, Options{URL: opts.URL, Auth: opts.Auth, CABundle: ca, Dir: filepath.Join(t.TempDir(), "c"), Reference: fetch(t, local).Revision()})
		if fetch(t, again).Len() != 2 {
			t.Error("pinned commit")
		}
		if _, err := again.Write(t.Context(), setReplicas("p", "cart", 70)); !errors.Is(err, reconcile.ErrInvalid) {
			t.Errorf("write on a pinned commit: %v", err)
		}
	})

	t.Run("many writers", func(t *testing.T) {
		before, err := local.Log(t.Context(), LogOptions{})
		if err != nil {
			t.Fatal(err)
		}
		const writers = 4
		var wg sync.WaitGroup
		for w := range writers {
			r := open(t, opts)
			wg.Go(func() {
				if _, err := r.Write(context.Background(), setReplicas(fmt.Sprint("many-", w), "cart", 100+w)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		after, err := local.Log(t.Context(), LogOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if len(after) != len(before)+writers {
			t.Errorf("%d commits, want %d", len(after)-len(before), writers)
		}
		runGit(t, dir, "fsck", "--strict", "--full")
	})
}

// A server that takes connections and says nothing holds nobody longer than
// the timeout or the context, whichever is first.
func TestHangingServer(t *testing.T) {
	t.Parallel()
	stop := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		select {
		case <-stop:
		case <-req.Context().Done():
		}
	}))
	defer srv.Close()
	defer close(stop)
	mute := listen(t, func(net.Conn) {})
	key, _ := newKey(t, "ed25519")
	known := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(known, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	auth, err := SSHKey("git", privatePEM(t, key), "", known)
	if err != nil {
		t.Fatal(err)
	}
	for name, opts := range map[string]Options{
		"http": {URL: srv.URL + "/repo.git"},
		"ssh":  {URL: "ssh://git@" + mute.String() + "/repo.git", Auth: auth},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if _, err := Open(ctx, opts); !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "within") {
				t.Errorf("context: %v", err)
			}
			opts.Timeout = 50 * time.Millisecond
			if _, err := Open(t.Context(), opts); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "within 50ms") {
				t.Errorf("timeout: %v", err)
			}
		})
	}
}

// While a connection hangs that was given up, everybody gets an error at once;
// when it is gone, all is as before.
func TestStuckConnection(t *testing.T) {
	t.Parallel()
	r, _ := newRepo(t, map[string]string{"a.yaml": deployment("a", 1, "x")}, Options{Timeout: time.Millisecond})
	hang := make(chan struct{})
	if err := r.network(t.Context(), func(context.Context) error { <-hang; return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if _, err := r.Fetch(t.Context()); !errors.Is(err, errStuck) {
		t.Errorf("fetch: %v", err)
	}
	if _, err := r.Write(t.Context(), setReplicas("1", "a", 2)); !errors.Is(err, errStuck) {
		t.Errorf("write: %v", err)
	}
	stuck := r.stuck
	close(hang)
	<-stuck
	fetch(t, r)
}

func TestRedact(t *testing.T) {
	_, err := Open(t.Context(), Options{URL: "https://dev:hunter2@127.0.0.1:1/x.git"})
	if err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}
