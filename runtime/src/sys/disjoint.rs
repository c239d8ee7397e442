//! Slices that several threads write at once.

use std::marker::PhantomData;

/// A slice whose elements are written by pieces of work that never share one.
#[derive(Clone, Copy)]
pub(crate) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a `&mut [T]` that threads divide among themselves, as `get` obliges its callers to.
unsafe impl<T: Send> Send for Disjoint<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    /// The elements of `slice`.
    pub(crate) fn new(slice: &'a mut [T]) -> Disjoint<'a, T> {
        Disjoint { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// The `len` elements from `at` on. Panics if there are not so many.
    ///
    /// # Safety
    /// While the pointer is used for these elements, no other thread uses them.
    pub(crate) unsafe fn get(&self, at: usize, len: usize) -> *mut T {
        assert!(at <= self.len && len <= self.len - at, "a piece of work lies outside the slice");
        // SAFETY: the offset lies within the slice.
        unsafe { self.start.add(at) }
    }
}
