//! Threads that share out independent pieces of work.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A number of threads; one means no thread is ever started.
#[derive(Debug)]
pub struct Pool {
    threads: usize,
}

impl Pool {
    /// A pool of `threads` threads, the caller's included; 0 counts as 1.
    #[must_use]
    pub fn new(threads: usize) -> Pool {
        Pool { threads: threads.max(1) }
    }

    /// Number of threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `work(i)` once for every `i` in `0..n`, in any order and on any thread, and returns when all are done.
    pub fn for_each(&self, n: usize, work: &(dyn Fn(usize) + Sync)) {
        let workers = self.threads.min(n);
        if workers <= 1 {
            (0..n).for_each(work);
            return;
        }
        let next = AtomicUsize::new(0);
        let run = || {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= n {
                    break;
                }
                work(i);
            }
        };
        std::thread::scope(|s| {
            for _ in 1..workers {
                s.spawn(run);
            }
            run();
        });
    }

    /// Splits `data` into pieces of `piece` elements (the last may be shorter) and calls `work(i, piece i)` for each.
    pub fn for_each_chunk<T: Send>(&self, data: &mut [T], piece: usize, work: &(dyn Fn(usize, &mut [T]) + Sync)) {
        let pieces: Vec<std::sync::Mutex<&mut [T]>> =
            data.chunks_mut(piece.max(1)).map(std::sync::Mutex::new).collect();
        self.for_each(pieces.len(), &|i| {
            if let Some(Ok(mut p)) = pieces.get(i).map(|p| p.lock()) {
                work(i, &mut p);
            }
        });
    }
}
