//! The one client for our own server, and for other members: logging in, and statements as named operations.
//!
//! | module | owns |
//! |---|---|
//! | [`connect`] | one login, whatever authentication the account has |
//! | [`error`] | why a statement failed |
//! | [`login`] | where a server is and who we are to it |
//! | [`session`] | the statements |
pub mod connect;
pub mod error;
pub mod login;
pub mod session;

pub use connect::Listens;
pub use error::{Answer, SqlError};
pub use login::{Login, NoLogin};
pub use session::{ANSWER_WITHIN, LogPosition, Session, Step};
