use protocol::logical::{Content, Table, VERSION};

use super::*;
use crate::datadir::testing::Tree;

/// A node, and a staged part that describes a snapshot of one table.
struct World {
    layout: Layout,
    definitions: PathBuf,
    _tree: Tree,
}

impl World {
    fn new() -> World {
        let (tree, text) = (Tree::new(), |text: &str| text.to_owned());
        let (database, name, create) = (text("d"), text("t"), b"CREATE TABLE `t` (`a` int)".to_vec());
        let table = Table { database, name, create, content: Content::Nothing };
        let contents = Contents { version: VERSION, tables: vec![table], ..Contents::default() };
        let definitions = tree.path("definitions");
        std::fs::write(&definitions, zstd::bulk::compress(&contents.encode().unwrap(), 1).unwrap()).unwrap();
        World { layout: tree.layout(&[]), definitions, _tree: tree }
    }

    fn snapshot_begins(&self, arriving: &Arriving<'_>, number: u32) -> Option<FileId> {
        arriving.part(FileId(number), DEFINITIONS.to_owned(), &self.definitions).unwrap()
    }

    fn rows_arrive(&self, arriving: &Arriving<'_>, number: u32) -> Option<FileId> {
        arriving.part(FileId(number), format!("0011aabb/{number}-0"), &self.definitions).unwrap()
    }
}

#[test]
fn a_snapshot_that_begins_again_voids_everything_before_it() {
    let world = World::new();
    let arriving = Arriving::new(1, &world.layout);
    assert_eq!(world.rows_arrive(&arriving, 1), None);
    assert_eq!(world.snapshot_begins(&arriving, 0), Some(FileId(0)));
    // A part with a smaller number is still on its way.
    assert_eq!(world.snapshot_begins(&arriving, 3), None);
    assert_eq!(world.rows_arrive(&arriving, 4), None);
    assert_eq!(world.rows_arrive(&arriving, 2), Some(FileId(3)));
    assert_eq!(world.rows_arrive(&arriving, 5), None);
}

/// Threads that work for a snapshot when it becomes void get nothing more to do, and what they have done does not count for the
/// next one.
#[test]
fn nothing_is_done_for_a_void_snapshot() {
    let world = World::new();
    let (arriving, cancel, over) = (Arriving::new(2, &world.layout), Cancel::new(), AtomicBool::new(false));
    let next = |number| arriving.next(FileId(number), &over, &cancel);
    world.snapshot_begins(&arriving, 0);
    assert!(!arriving.begins_again(FileId(0), Duration::ZERO, &cancel).unwrap());
    assert!(matches!(next(0), Ok(Some(Step::Make(0, _)))));
    world.snapshot_begins(&arriving, 1);
    assert!(arriving.check(FileId(0)).is_err() && arriving.check(FileId(1)).is_ok());
    assert!(arriving.begins_again(FileId(0), Duration::ZERO, &cancel).unwrap());
    assert!(next(0).unwrap_err().is::<Void>());
    let made = |schedule: &mut Schedule| schedule.made(0, Vec::new());
    assert!(arriving.done(FileId(0), made).unwrap_err().is::<Void>());
    // It is made anew, and is not complete before that.
    assert!(matches!(next(1), Ok(Some(Step::Make(0, _)))));
    arriving.done(FileId(1), made).unwrap();
    assert!(matches!(next(1), Ok(Some(Step::Finish(0, ..)))));
    arriving.stop();
    assert!(next(1).unwrap_err().is::<Void>() && arriving.check(FileId(1)).is_err());
    // Nobody waits for it then.
    assert!(!arriving.begins_again(FileId(1), Duration::from_secs(60), &cancel).unwrap());
}
