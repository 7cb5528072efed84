//! Files of the Galera provider and their content.

pub mod conf_change;
pub mod gcache;
pub mod grastate;
pub mod hash;
pub mod ist;
pub mod ring;
pub mod seqnos;
pub mod splice;
pub mod write_set;
pub mod write_set_check;
