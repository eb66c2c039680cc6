package gitsource

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/evenkeel-go/evenkeel/reconcile"
)

func newKey(t testing.TB, kind string) (crypto.Signer, ssh.Signer) {
	t.Helper()
	var key crypto.Signer
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if key = ed; kind == "ecdsa" {
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, s
}

// serveSSH runs git's own server programs behind an ssh server that accepts
// one key.
func serveSSH(t testing.TB, client ssh.PublicKey, host ...ssh.Signer) net.Addr {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if string(key.Marshal()) != string(client.Marshal()) {
			return nil, errors.New("unknown key")
		}
		return nil, nil
	}}
	for _, k := range host {
		config.AddHostKey(k)
	}
	return listen(t, func(conn net.Conn) {
		_, channels, requests, err := ssh.NewServerConn(conn, config)
		if err != nil {
			return
		}
		go ssh.DiscardRequests(requests)
		for c := range channels {
			channel, requests, err := c.Accept()
			if err != nil {
				return
			}
			for req := range requests {
				var exe struct{ Command string }
				ok := req.Type == "exec" && ssh.Unmarshal(req.Payload, &exe) == nil
				_ = req.Reply(ok, nil)
				if !ok {
					continue
				}
				program, dir, _ := strings.Cut(strings.TrimPrefix(exe.Command, "git-"), " ")
				cmd := exec.CommandContext(t.Context(), "git", "-c", "safe.directory=*", program, strings.Trim(dir, "'"))
				cmd.Stdout, cmd.Stderr = channel, channel.Stderr()
				status := struct{ Code uint32 }{1}
				if in, err := cmd.StdinPipe(); err == nil {
					go func() {
						_, _ = io.Copy(in, channel)
						_ = in.Close()
					}()
					if cmd.Run() == nil {
						status.Code = 0
					}
				}
				_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(status))
				_ = channel.Close()
			}
		}
	})
}

// listen serves connections until the test ends.
func listen(t testing.TB, serve func(net.Conn)) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	var conns []net.Conn
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
			wg.Go(func() { serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for _, c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr()
}

func privatePEM(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	block, err := ssh.MarshalPrivateKey(key, "")
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block)
}

func TestSSH(t *testing.T) {
	local, dir := newRepo(t, map[string]string{"cart.yaml": deployment("cart", 1, "cart:1")}, Options{})
	mine, client := newKey(t, "ed25519")
	theirs, _ := newKey(t, "ed25519")
	_, host := newKey(t, "ed25519")
	_, host2 := newKey(t, "ecdsa")
	addr := serveSSH(t, client.PublicKey(), host2, host)
	url := "ssh://git@" + addr.String() + dir
	known := func(name string, key ssh.PublicKey) string {
		t.Helper()
		name = filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(name, []byte(knownhosts.Line([]string{addr.String()}, key)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	right := known("right", host.PublicKey())
	for name, tc := range map[string]struct {
		key   crypto.Signer
		known string
		want  string
	}{
		"another host key":  {mine, known("wrong", client.PublicKey()), "key mismatch"},
		"another key":       {theirs, right, "unable to authenticate"},
		"no repository":     {mine, right, "not found"},
		"no known_hosts":    {mine, filepath.Join(dir, "nope"), "known hosts"},
		"the host, another": {mine, known("other", host2.PublicKey()), ""},
	} {
		auth, err := SSHKey("git", privatePEM(t, tc.key), "", tc.known)
		if err == nil {
			u := url
			if name == "no repository" {
				u += "x"
			}
			_, err = Open(t.Context(), Options{URL: u, Auth: auth})
		}
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}

	// Of the server's two keys only the second is known.
	auth, err := SSHKey("git", privatePEM(t, mine), "", right)
	if err != nil {
		t.Fatal(err)
	}
	r := open(t, Options{URL: url, Auth: auth})
	if fetch(t, r).Len() != 1 {
		t.Error("bad state")
	}
	push(t, local, "Other", map[string]string{"pay.yaml": deployment("pay", 1, "pay:1")})
	c, err := r.Write(t.Context(), setReplicas("1", "cart", 3))
	if err != nil {
		t.Fatal(err)
	}
	if got := fetch(t, local); got.Revision() != c.Revision || got.Len() != 2 {
		t.Errorf("the server has %s", got.Revision())
	}
	if _, err := r.Write(t.Context(), setReplicas("2", "cart", 3)); !errors.Is(err, reconcile.ErrNoChange) {
		t.Error(err)
	}
}
