//! Files of the Galera provider, and what is in them.

pub mod conf_change;
pub mod gcache;
pub mod grastate;
pub mod hash;
pub mod ring;
pub mod seqnos;
pub mod write_set;
