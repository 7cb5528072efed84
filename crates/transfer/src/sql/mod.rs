//! The one client for our own server, and for other members: logging in, and statements as named operations.
//!
//! | module | owns |
//! |---|---|
//! | [`connect`] | one login, whatever authentication the account has |
//! | [`definitions`] | what a server shows of its databases, tables, columns and keys |
//! | [`error`] | why a statement failed |
//! | [`keys`] | the key in whose order a table is read, and ranges of its values |
//! | [`login`] | where a server is and who we are to it |
//! | [`loading`] | statements with which a private server, or a running joiner's, gets its data |
//! | [`joining`] | what a running joiner's server gets besides |
//! | [`reading`] | statements with which the rows of a logical snapshot are read |
//! | [`status`] | questions about a server's status and variables |
//! | [`session`] | all others |
pub mod connect;
pub mod definitions;
pub mod error;
pub mod joining;
pub mod keys;
pub mod loading;
pub mod login;
pub mod reading;
pub mod session;
pub mod status;

pub use connect::Listens;
pub use error::{Answer, SqlError};
pub use login::{Login, NoLogin};
pub use session::{ANSWER_WITHIN, Session, Step};
pub use status::{Busyness, LogPosition};
