//! Results that several threads write at once.

use std::marker::PhantomData;

/// A slice whose elements are written by pieces of work that never share one.
#[derive(Clone, Copy)]
pub(super) struct Output<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a `&mut [T]` that threads divide among themselves, as `get` obliges its callers to.
unsafe impl<T: Send> Send for Output<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Output<'_, T> {}

impl<'a, T> Output<'a, T> {
    /// The elements of `slice`.
    pub(super) fn new(slice: &'a mut [T]) -> Output<'a, T> {
        Output { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// The `len` elements from `at` on. Panics if there are not so many.
    ///
    /// # Safety
    /// While the pointer is used for these elements, no other thread uses them.
    pub(super) unsafe fn get(&self, at: usize, len: usize) -> *mut T {
        assert!(at <= self.len && len <= self.len - at, "a piece of work lies outside the result");
        // SAFETY: the offset lies within the slice.
        unsafe { self.start.add(at) }
    }
}
