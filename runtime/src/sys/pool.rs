//! Threads that share out independent pieces of work.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::Disjoint;

/// How long a thread looks for work, or for the end of it, before it sleeps.
const SPIN: Duration = Duration::from_micros(50);

/// A number of threads that persist between pieces of work. They start when they are first needed; with one thread, none
/// ever does. Dropping the pool ends them.
pub struct Pool {
    threads: usize,
    /// Whether work is being shared out. Whoever asks meanwhile, from within that work or from elsewhere, does its own alone.
    busy: AtomicBool,
    workers: OnceLock<Workers>,
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads).finish_non_exhaustive()
    }
}

impl Pool {
    /// A pool of `threads` threads, the caller's included; 0 counts as 1.
    #[must_use]
    pub fn new(threads: usize) -> Pool {
        Pool { threads: threads.max(1), busy: AtomicBool::new(false), workers: OnceLock::new() }
    }

    /// Number of threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// Calls `work(i)` once for every `i` in `0..n`, in any order and on any thread, and returns when all are done. Within
    /// `work`, this pool is one thread.
    ///
    /// # Panics
    /// If `work` does, with its message; further pieces may then be left out.
    pub fn for_each(&self, n: usize, work: &(dyn Fn(usize) + Sync)) {
        if self.threads == 1 || n <= 1 || self.busy.swap(true, Ordering::Acquire) {
            (0..n).for_each(work);
            return;
        }
        let panicked = self.workers.get_or_init(|| Workers::start(self.threads)).run(n, self.threads, work);
        self.busy.store(false, Ordering::Release);
        if let Some(payload) = panicked {
            resume_unwind(payload);
        }
    }

    /// Splits `data` into pieces of `piece` elements (the last may be shorter) and calls `work(i, piece i)` for each.
    ///
    /// # Panics
    /// As [`Pool::for_each`].
    pub fn for_each_chunk<T: Send>(&self, data: &mut [T], piece: usize, work: &(dyn Fn(usize, &mut [T]) + Sync)) {
        let (piece, len) = (piece.max(1), data.len());
        let data = Disjoint::new(data);
        self.for_each(len.div_ceil(piece), &|i| {
            let start = i * piece;
            let n = piece.min(len - start);
            // SAFETY: pieces do not overlap, and each is handed out once.
            work(i, unsafe { std::slice::from_raw_parts_mut(data.get(start, n), n) });
        });
    }
}

/// One call of [`Pool::for_each`].
struct Job<'a> {
    work: &'a (dyn Fn(usize) + Sync),
    n: usize,
    next: AtomicUsize,
    panicked: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Job<'_> {
    /// Takes pieces until none is left.
    fn help(&self) {
        let taken = catch_unwind(AssertUnwindSafe(|| {
            loop {
                let i = self.next.fetch_add(1, Ordering::Relaxed);
                if i >= self.n {
                    break;
                }
                (self.work)(i);
            }
        }));
        if let Err(payload) = taken {
            self.next.store(self.n, Ordering::Relaxed);
            lock(&self.panicked).get_or_insert(payload);
        }
    }
}

/// A job on the stack of the thread that shares it out.
#[derive(Clone, Copy)]
struct JobPointer(*const Job<'static>);

// SAFETY: a job is only read, through types that are `Sync`.
unsafe impl Send for JobPointer {}

/// What the threads of a pool agree on.
#[derive(Default)]
struct State {
    /// The job, while threads may join it.
    job: Option<JobPointer>,
    /// How many more threads it has use for.
    seats: usize,
    /// Sleeping threads.
    asleep: usize,
    ending: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Counts jobs, and the end; changed under the lock.
    epoch: AtomicUsize,
    /// Threads in the job; changed under the lock.
    inside: AtomicUsize,
    /// The epoch has changed.
    start: Condvar,
    /// `inside` is 0.
    left: Condvar,
}

struct Workers {
    shared: Arc<Shared>,
    spin: bool,
    handles: Vec<JoinHandle<()>>,
}

impl Workers {
    fn start(threads: usize) -> Workers {
        let shared = Arc::new(Shared::default());
        // A thread that spins must not hold the processor that another needs.
        let spin = thread::available_parallelism().is_ok_and(|n| threads <= n.get());
        // Where the system refuses a thread, the others do its work.
        let handles = (1..threads)
            .filter_map(|i| {
                let shared = Arc::clone(&shared);
                thread::Builder::new().name(format!("convc-{i}")).spawn(move || shared.serve(spin)).ok()
            })
            .collect();
        Workers { shared, spin, handles }
    }

    /// Does the work on this thread and those that join in; returns what a piece of it panicked with.
    fn run(&self, n: usize, threads: usize, work: &(dyn Fn(usize) + Sync)) -> Option<Box<dyn Any + Send>> {
        let job = Job { work, n, next: AtomicUsize::new(0), panicked: Mutex::new(None) };
        let shared = &*self.shared;
        let mut state = lock(&shared.state);
        state.job = Some(JobPointer(std::ptr::from_ref(&job).cast()));
        state.seats = threads.min(n) - 1;
        shared.epoch.fetch_add(1, Ordering::Release);
        let asleep = state.asleep;
        drop(state);
        if asleep > 0 {
            shared.start.notify_all();
        }
        job.help();
        // From here on no thread joins, so that late ones are not waited for.
        lock(&shared.state).job = None;
        if self.spin {
            spin_while(|| shared.inside.load(Ordering::Acquire) > 0);
        }
        let mut state = lock(&shared.state);
        while shared.inside.load(Ordering::Acquire) > 0 {
            state = shared.left.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        job.panicked.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.ending = true;
        self.shared.epoch.fetch_add(1, Ordering::Release);
        drop(state);
        self.shared.start.notify_all();
        for handle in self.handles.drain(..) {
            // A thread that panicked outside of any work has nothing to say here.
            let _ = handle.join();
        }
    }
}

impl Shared {
    /// The life of a thread.
    fn serve(&self, spin: bool) {
        let mut seen = 0;
        loop {
            if spin {
                spin_while(|| self.epoch.load(Ordering::Acquire) == seen);
            }
            let mut state = lock(&self.state);
            while self.epoch.load(Ordering::Acquire) == seen {
                state.asleep += 1;
                state = self.start.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.asleep -= 1;
            }
            seen = self.epoch.load(Ordering::Acquire);
            if state.ending {
                return;
            }
            let Some(JobPointer(job)) = state.job.filter(|_| state.seats > 0) else { continue };
            state.seats -= 1;
            self.inside.fetch_add(1, Ordering::Relaxed);
            drop(state);
            // SAFETY: the job was joined under the lock while it was open, and the thread that owns it closes it under
            // the lock and then waits until `inside` is 0, before it lets go of the job.
            unsafe { &*job }.help();
            let state = lock(&self.state);
            if self.inside.fetch_sub(1, Ordering::Release) == 1 {
                drop(state);
                self.left.notify_all();
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits actively while `waiting` holds, but no longer than [`SPIN`].
fn spin_while(waiting: impl Fn() -> bool) {
    let begin = Instant::now();
    while waiting() {
        for _ in 0..16 {
            std::hint::spin_loop();
        }
        if begin.elapsed() > SPIN {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::atomic::AtomicU64};

    use super::*;

    fn sum(pool: &Pool, n: usize) -> u64 {
        let total = AtomicU64::new(0);
        pool.for_each(n, &|i| {
            total.fetch_add(i as u64 + 1, Ordering::Relaxed);
        });
        total.into_inner()
    }

    #[test]
    fn every_piece_is_done_once_whatever_the_numbers() {
        for threads in [0, 1, 2, 3, 8] {
            let pool = Pool::new(threads);
            for n in [0, 1, 2, 3, 7, 1000] {
                let counts: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
                pool.for_each(n, &|i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "{threads} threads, {n} pieces");
            }
        }
    }

    #[test]
    fn chunks_cover_the_data() {
        for (len, piece) in [(0, 3), (10, 3), (9, 3), (5, 100), (4, 0)] {
            let mut data = vec![0; len];
            Pool::new(3).for_each_chunk(&mut data, piece, &|i, chunk| chunk.fill(i + 1));
            let expected: Vec<usize> = (0..len).map(|i| i / piece.max(1) + 1).collect();
            assert_eq!(data, expected);
        }
    }

    #[test]
    fn one_thread_is_the_caller() {
        let caller = thread::current().id();
        Pool::new(1).for_each(100, &|_| assert_eq!(thread::current().id(), caller));
    }

    #[test]
    fn threads_take_part() {
        let (pool, seen) = (Pool::new(2), Mutex::new(BTreeSet::new()));
        pool.for_each(2, &|_| {
            lock(&seen).insert(format!("{:?}", thread::current().id()));
            let begin = Instant::now();
            while lock(&seen).len() < 2 && begin.elapsed() < Duration::from_secs(60) {
                thread::yield_now();
            }
        });
        assert_eq!(lock(&seen).len(), 2);
    }

    #[test]
    fn work_within_work_is_done() {
        let (pool, total) = (Pool::new(3), AtomicU64::new(0));
        pool.for_each(20, &|_| {
            total.fetch_add(sum(&pool, 10), Ordering::Relaxed);
        });
        assert_eq!(total.into_inner(), 20 * 55);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_pool_usable() {
        let pool = Pool::new(4);
        for bad in [0, 17, 63] {
            let caught =
                catch_unwind(AssertUnwindSafe(|| pool.for_each(64, &|i| assert!(i != bad, "piece {i} is bad"))));
            let message = *caught.unwrap_err().downcast::<String>().unwrap();
            assert_eq!(message, format!("piece {bad} is bad"));
            assert_eq!(sum(&pool, 100), 5050);
        }
    }

    #[test]
    fn many_short_jobs_from_many_callers() {
        let pool = Pool::new(3);
        thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for n in 0..3000 {
                        let n = n % 37;
                        assert_eq!(sum(&pool, n), (n * (n + 1) / 2) as u64);
                    }
                });
            }
        });
    }

    #[test]
    fn pools_come_and_go() {
        for threads in 0..300 {
            let pool = Pool::new(threads % 5);
            if threads % 3 != 0 {
                assert_eq!(sum(&pool, 10), 55);
            }
        }
    }
}
