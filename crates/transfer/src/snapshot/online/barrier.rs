//! The barrier before the copy.
use std::time::Duration;

use super::locking::Again;
use super::stage::Stage;
use crate::cancel::Cancel;
use crate::snapshot::declined::SnapshotError;
use crate::sql::Login;

/// How long the barrier before the copy may take.
const BARRIER_MAX: Duration = Duration::from_secs(10);

/// Waits for a running IMPORT TABLESPACE, which writes pages without redo. START is granted when none is running, and
/// is released at once; an import that begins later is recognised by its traces (`checks`). Returns the reason if START
/// was not granted.
pub(super) fn barrier(login: &Login, cancel: &Cancel) -> Result<Option<Again>, SnapshotError> {
    let mut stage = Stage::open(login, BARRIER_MAX, cancel)?;
    match stage.start().and_then(|()| stage.end()) {
        Ok(()) => Ok(None),
        Err(e) => {
            cancel.check().map_err(anyhow::Error::from)?;
            Again::try_from(e).map(Some).map_err(SnapshotError::from)
        }
    }
}
