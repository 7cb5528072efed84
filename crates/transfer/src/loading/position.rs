//! Stores the position in files of a server that has ended in order, where the server that starts on them finds it: in a rollback
//! segment header, as after any commit ([`formats::innodb::wsrep_position`]).
//!
//! A server stores it there only with a provider that has received a state, which the private server is not. The server has ended in
//! order, so no redo is replayed over the page; [`crate::datadir::recovered_position`] reads the result back before it is installed.
use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context, Result};
use formats::SpaceId;
use formats::innodb::page::{self, PageState};
use formats::innodb::tablespace::{PAGE0_BYTES, PageFormat, parse_page0};
use formats::innodb::wsrep_position::{StoredPosition, TRX_SYS_PAGE, rseg_slots, store_position};

use crate::datadir::layout::Layout;
use crate::failure::{Failure, Kind};

/// Stores the position in the system tablespace of `layout`, whose server has ended.
///
/// # Errors
/// A file cannot be read or written, or is not as expected (an encrypted one, for example).
pub fn store(layout: &Layout, position: &StoredPosition) -> Result<()> {
    let cannot = |why: &str| {
        Failure::new(
            Kind::Server,
            format!("the position cannot be stored in the new system tablespace: {why}"),
        )
    };
    let first = layout.system_files.first().ok_or_else(|| cannot("it has no file"))?;
    let file = File::options().read(true).write(true).open(&first.path);
    let file = file.with_context(|| format!("cannot open {}", first.path.display()))?;
    let mut head = [0; PAGE0_BYTES];
    file.read_exact_at(&mut head, 0)?;
    let format = parse_page0(&head).map_err(|e| cannot(&e.to_string()))?.format;
    let system = read(&file, &format, TRX_SYS_PAGE.0)?;
    let slot = rseg_slots(&system).into_iter().find(|(space, _)| *space == SpaceId(0));
    let (_, number) = slot.ok_or_else(|| cannot("it has no rollback segment"))?;
    let mut header = read(&file, &format, number.0)?;
    if page::verify(&format, &header) != PageState::Valid {
        return Err(cannot("a page is not valid").into());
    }
    if !store_position(&mut header, format.logical_size, position) || !page::seal(&format, &mut header) {
        let hint = "set innodb_encrypt_tables=OFF on this node for the time of the transfer, if it is on";
        return Err(cannot("its rollback segment is encrypted, or of another version").hint(hint).into());
    }
    file.write_all_at(&header, u64::from(number.0) * format.physical_size as u64)?;
    file.sync_all().with_context(|| format!("cannot sync {}", first.path.display()))
}

fn read(file: &File, format: &PageFormat, number: u32) -> Result<Vec<u8>> {
    let mut page = vec![0; format.physical_size];
    file.read_exact_at(&mut page, u64::from(number) * format.physical_size as u64)?;
    Ok(page)
}
