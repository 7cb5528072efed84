//! Files of the Galera provider.

pub mod grastate;
