//! The bytes on the wire: frozen greetings and messages, limits, and no panic on anything.
mod chunks;
mod files;
mod frames;
mod greeting;
mod messages;

use rejoin_protocol::inventory::{FileEntry, FileId, FileRole, Place};

fn entry() -> FileEntry {
    let role = FileRole::TableElsewhere { owner: "db/t.isl".into() };
    FileEntry {
        id: FileId(7),
        place: Place::External,
        path: "/x/db/t.ibd".into(),
        size: 9,
        allocated: 4096,
        role,
    }
}
