//! The donor's side of the data. (Reduced here; see the main branch.)
pub mod native;
