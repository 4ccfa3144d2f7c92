// Says what its own runtime says, when it is asked, and allocates nothing while it answers: what is read from outside
// after an answer must be the same.
package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
)

type node struct {
	next *node
	rest [5]int
}

var (
	kept    [][]byte
	list    *node
	stats   runtime.MemStats
	samples = []metrics.Sample{{Name: "/gc/heap/goal:bytes"}, {Name: "/gc/cycles/total:gc-cycles"}}
	records = make([]runtime.MemProfileRecord, 10000)
	answer  = make([]byte, 0, 8<<20)
	wait    = make(chan bool)
)

//go:noinline
func keep(count, size int) {
	for i := 0; i < count; i++ {
		one := make([]byte, size)
		for at := 0; at < size; at += 512 {
			one[at] = 1
		}
		kept = append(kept, one)
	}
}

//go:noinline
func link(count int) {
	for i := 0; i < count; i++ {
		list = &node{next: list}
	}
}

//go:noinline
func churn(count, size int) {
	for i := 0; i < count; i++ {
		last := make([]byte, size)
		last[0] = byte(len(kept))
		if i == count-1 {
			kept = append(kept, last)
		}
	}
}

func deep(n int) int {
	if n == 0 {
		keep(40, 3000)
		return 0
	}
	return deep(n-1) + 1
}

func put(name string, values ...uint64) {
	answer = append(answer, name...)
	for _, value := range values {
		answer = append(answer, ' ')
		answer = strconv.AppendUint(answer, value, 10)
	}
	answer = append(answer, '\n')
}

func tell() {
	answer = answer[:0]
	runtime.ReadMemStats(&stats)
	metrics.Read(samples)
	put("collections", uint64(stats.NumGC), stats.PauseTotalNs)
	put("heap", stats.HeapAlloc, stats.HeapInuse, stats.HeapIdle-stats.HeapReleased, stats.StackInuse)
	put("allocated", stats.TotalAlloc)
	put("goal", samples[0].Value.Uint64(), stats.NextGC)
	put("goroutines", uint64(runtime.NumGoroutine()))
	put("pauses", stats.PauseNs[:]...)
	put("ends", stats.PauseEnd[:]...)
	put("rate", uint64(runtime.MemProfileRate))
	count, _ := runtime.MemProfile(records, true)
	for i := 0; i < count; i++ {
		record := &records[i]
		answer = append(answer, "record"...)
		for _, value := range []int64{record.AllocObjects, record.FreeObjects, record.AllocBytes, record.FreeBytes} {
			answer = append(answer, ' ')
			answer = strconv.AppendInt(answer, value, 10)
		}
		for _, pc := range record.Stack() {
			answer = append(answer, ' ')
			answer = strconv.AppendUint(answer, uint64(pc), 10)
		}
		answer = append(answer, '\n')
	}
	put("end")
	os.Stdout.Write(answer)
}

func main() {
	// Not by GODEBUG: Go 1.19 sets the rate anew after it has read that.
	if rate, err := strconv.Atoi(os.Getenv("RATE")); err == nil {
		runtime.MemProfileRate = rate
	}
	if len(os.Args) > 1 {
		limit, _ := strconv.Atoi(os.Args[1])
		debug.SetMemoryLimit(int64(limit) << 20)
	}
	for i := 0; i < 50; i++ {
		go func() { <-wait }()
	}
	runtime.SetFinalizer(&node{}, func(*node) {})
	command := make([]byte, 1)
	for {
		if n, err := os.Stdin.Read(command); n == 0 || err != nil {
			return
		}
		switch command[0] {
		case 'a':
			keep(2000, 1024)
			keep(100, 70000)
			link(20000)
			churn(20000, 200)
			deep(60)
		case 'f':
			kept, list = kept[:len(kept)/2], nil
		case 'c':
			runtime.GC()
		case 't':
			tell()
		}
	}
}
