//! Test support of convc.
