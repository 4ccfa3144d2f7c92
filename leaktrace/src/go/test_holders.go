// Objects that are held in every way there is, while the program goes on. It says where they are.
package main

import (
	"fmt"
	"os"
	"runtime"
	"time"
	"unsafe"
)

type Session struct {
	id   int
	next *Session
	data [5]int
}

type Registry struct {
	count int
	list  []*Session
}

var (
	sessions = map[int]*Session{}
	known    Registry
	queue    = make(chan *Session, 200)
	blobs    [][]byte
	head     *Session
	owner    *Session
	churned  = map[int]*Session{}
)

const many = 192

//go:noinline
func newSession(id int) *Session { return &Session{id: id} }

func told(s *Session) uint64 { return uint64(uintptr(unsafe.Pointer(s))) }

// Each group is made by a goroutine of its own, so that its stack does not name the objects afterwards.
func group(name string, make func(i int) uint64) {
	done := make_done()
	go func() {
		addresses := []any{}
		for i := 0; i < many; i++ {
			addresses = append(addresses, make(i))
		}
		fmt.Print(name)
		for _, address := range addresses {
			fmt.Print(" ", address)
		}
		fmt.Println()
		close(done)
	}()
	<-done
}

func make_done() chan bool { return make(chan bool) }

//go:noinline
func worker(made chan []uint64, wait chan bool) {
	var mine [many]*Session
	addresses := make([]uint64, many)
	for i := range mine {
		mine[i] = newSession(i)
		addresses[i] = told(mine[i])
	}
	made <- addresses
	<-wait
	for _, one := range mine {
		runtime.KeepAlive(one)
	}
}

func churn() {
	for i := 0; ; i++ {
		churned[i%5000] = newSession(i)
		if i%50 == 0 {
			head = &Session{id: i, next: head}
		}
		if i%20 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
}

func main() {
	group("map", func(i int) uint64 {
		sessions[i] = newSession(i)
		return told(sessions[i])
	})
	group("slice", func(i int) uint64 {
		one := newSession(i)
		known.list = append(known.list, one)
		return told(one)
	})
	group("channel", func(i int) uint64 {
		one := newSession(i)
		queue <- one
		return told(one)
	})
	group("blobs", func(i int) uint64 {
		blobs = append(blobs, make([]byte, 300))
		return uint64(uintptr(unsafe.Pointer(&blobs[i][0])))
	})
	group("list", func(i int) uint64 {
		head = &Session{id: i, next: head}
		return told(head)
	})
	group("finalizer", func(i int) uint64 {
		one := newSession(i)
		owner = &Session{next: owner}
		runtime.SetFinalizer(owner, func(*Session) { fmt.Fprintln(os.Stderr, one.id) })
		return told(one)
	})
	group("timer", func(i int) uint64 {
		one := newSession(i)
		time.AfterFunc(time.Hour, func() { fmt.Fprintln(os.Stderr, one.id) })
		return told(one)
	})
	group("garbage", func(i int) uint64 { return told(newSession(i)) })
	made, wait := make(chan []uint64), make(chan bool)
	go worker(made, wait)
	fmt.Print("stack")
	for _, address := range <-made {
		fmt.Print(" ", address)
	}
	fmt.Println()
	go churn()
	fmt.Println("end")
	os.Stdin.Read(make([]byte, 1))
	fmt.Println(len(sessions), len(known.list), len(queue), len(blobs), head.id, owner.id, len(churned))
}
