use super::super::page::lsn;
use super::*;
use proptest::prelude::*;

const SPACE: SpaceId = SpaceId(3);
const PAGE: PageNo = PageNo(9);
const SIZE: usize = 4096;

fn image(lsn: u64) -> PageImage {
    let mut bytes = vec![0x11; SIZE];
    put(&mut bytes, 16, &lsn.to_be_bytes());
    PageImage::new(SPACE, PAGE, SIZE, Ok(bytes))
}

fn of(page: u32, change: Change<'_>) -> PageChange<'_> {
    PageChange { space: SPACE, page: PageNo(page), change }
}

const WRITE: Change<'static> = Change::Write { at: 100, bytes: &[1, 2, 3] };

#[test]
fn what_is_in_the_page_is_not_played_again() {
    let mut page = image(500);
    page.play(Lsn(499), Lsn(520), &of(9, WRITE));
    assert_eq!(page, image(500));
    page.play(Lsn(500), Lsn(520), &of(10, WRITE));
    assert_eq!(page, image(500), "another page");
    page.play(Lsn(500), Lsn(520), &of(9, WRITE));
    // A second record of the same mini-transaction.
    page.play(Lsn(500), Lsn(520), &of(9, Change::Fill { at: 200, len: 5, pattern: &[7, 8] }));
    let bytes = page.content().unwrap();
    assert_eq!(
        (&bytes[99..104], &bytes[199..206]),
        (&[0x11, 1, 2, 3, 0x11][..], &[0x11, 7, 8, 7, 8, 7, 0x11][..])
    );
    assert_eq!((page.lsn(), lsn(bytes)), (Lsn(520), Some(Lsn(520))));
}

#[test]
fn a_page_made_anew_needs_no_file() {
    let mut page = PageImage::new(SPACE, PAGE, SIZE, Err(Gap::Missing));
    page.play(Lsn(10), Lsn(20), &of(9, WRITE));
    assert_eq!(page.content(), Err(Gap::Missing), "a change alone does not make a page");
    page.play(Lsn(20), Lsn(30), &of(9, Change::Init));
    page.play(Lsn(20), Lsn(30), &of(9, WRITE));
    let bytes = page.content().unwrap();
    assert_eq!(
        (page::page_no(bytes), &bytes[34..38], &bytes[100..103]),
        (Some(PAGE), &[0, 0, 0, 3][..], &[1, 2, 3][..])
    );
    // This also holds if the file has a later state: the log continues to it.
    let mut later = image(9000);
    later.play(Lsn(20), Lsn(30), &of(9, Change::Init));
    later.play(Lsn(20), Lsn(30), &of(9, WRITE));
    assert_eq!(later.content(), page.content());
}

#[test]
fn unknown_changes_leave_no_content() {
    for (change, gap) in [
        (Change::Unknown, Gap::Unknown),
        (Change::Write { at: SIZE - 2, bytes: &[1, 2, 3] }, Gap::Unknown),
        (Change::Fill { at: SIZE, len: 1, pattern: &[1] }, Gap::Unknown),
        (Change::Move { at: 100, len: 10, from: SIZE - 5 }, Gap::Unknown),
        (Change::UndoAppend(&[1, 2, 3]), Gap::Unknown),
        (Change::Encrypted { cut: false }, Gap::EncryptedRedo),
        (Change::Free, Gap::Freed),
        (Change::Trim, Gap::Trimmed),
    ] {
        let mut page = image(500);
        page.play(Lsn(400), Lsn(420), &of(9, change));
        if change != Change::Trim {
            assert_eq!(page, image(500), "older than the page: {change:?}");
        }
        page.play(Lsn(600), Lsn(620), &of(9, change));
        page.play(Lsn(620), Lsn(630), &of(9, WRITE));
        assert_eq!(page.content(), Err(gap), "{change:?}");
        page.play(Lsn(630), Lsn(640), &of(9, Change::Init));
        assert!(page.content().is_ok());
    }
    assert_eq!(PageImage::new(SPACE, PAGE, SIZE, Ok(vec![0; 100])).content(), Err(Gap::Damaged));
}

#[test]
fn a_cut_takes_all_of_an_undo_tablespace_and_the_end_of_the_system_one() {
    let cut = of(640, Change::Trim);
    assert!(image(1).concerns(&cut));
    let cut = PageChange { space: SpaceId(0), ..cut };
    let system = |page| PageImage::new(SpaceId(0), PageNo(page), SIZE, Err(Gap::Missing));
    assert!(!system(5).concerns(&cut) && system(640).concerns(&cut) && !image(1).concerns(&cut));
}

#[test]
fn an_undo_page_fills_up() {
    let mut page = image(0);
    page.play(Lsn(1), Lsn(2), &of(9, Change::UndoInit));
    let record = [11, 0, 5];
    page.play(Lsn(1), Lsn(2), &of(9, Change::UndoAppend(&record)));
    let bytes = page.content().unwrap();
    assert_eq!((page::page_type(bytes), be16(bytes, 40), be16(bytes, 42)), (Some(2), Some(56), Some(63)));
    assert_eq!(bytes[56..63], [0, 63, 11, 0, 5, 0, 56]);
    let long = vec![1; SIZE - 38 - 63 - 6];
    page.play(Lsn(2), Lsn(3), &of(9, Change::UndoAppend(&long)));
    assert_eq!(page.content(), Err(Gap::Unknown), "no room");
}

fn any_change(data: &[u8], at: usize, len: usize, from: usize, kind: u8) -> Change<'_> {
    match kind % 11 {
        0 => Change::Init,
        1 => Change::Free,
        2 => Change::Trim,
        3 => Change::Write { at, bytes: data },
        4 => Change::Fill { at, len, pattern: data },
        5 => Change::Move { at, len, from },
        6 => Change::UndoInit,
        7 => Change::UndoAppend(data),
        8 => Change::Nothing,
        9 => Change::Unknown,
        _ => Change::Encrypted { cut: len.is_multiple_of(2) },
    }
}

proptest! {
    /// Any changes to any page: it keeps its size, and its LSN is that of the last applied change.
    #[test]
    fn never_panics(
        size in 0usize..5000,
        changes in prop::collection::vec((any::<u8>(), 0usize..5200, 0usize..300, 0usize..5200, prop::collection::vec(any::<u8>(), 1..20)), 0..40),
        since in 0u64..40,
    ) {
        let mut bytes = vec![0; size];
        put(&mut bytes, 16, &since.to_be_bytes());
        let mut page = PageImage::new(SPACE, PAGE, size, Ok(bytes));
        for (n, (kind, at, len, from, data)) in changes.iter().enumerate() {
            let (start, end) = (Lsn(n as u64), Lsn(n as u64 + 1));
            page.play(start, end, &of(9, any_change(data, *at, *len, *from, *kind)));
            if let Ok(bytes) = page.content() {
                prop_assert_eq!(bytes.len(), size);
                prop_assert!(size < 24 || page.lsn() == end || page.lsn() == Lsn(since) && start < Lsn(since));
            }
        }
    }

    /// From the state in the file at any point of the log, the page reaches the same result as from its
    /// beginning.
    #[test]
    fn where_the_file_stands_does_not_matter(
        writes in prop::collection::vec((8usize..4000, 1usize..90, any::<u8>()), 1..30),
        flushed in 0usize..30,
    ) {
        let play = |page: &mut PageImage, range: std::ops::Range<usize>| {
            for n in range {
                let Some(&(at, len, byte)) = writes.get(n) else { continue };
                // Move and fill are not idempotent.
                let at = if (16 - len.min(8)..24).contains(&at) { 40 } else { at };
                let (start, end) = (Lsn(n as u64 * 10), Lsn(n as u64 * 10 + 10));
                page.play(start, end, &of(9, Change::Move { at, len, from: at + 1 }));
                page.play(start, end, &of(9, Change::Fill { at: at + len, len: 2, pattern: &[byte] }));
            }
        };
        let mut whole = image(0);
        play(&mut whole, 0..30);
        let mut part = image(0);
        play(&mut part, 0..flushed);
        let mut again = PageImage::new(SPACE, PAGE, SIZE, part.content().map(<[u8]>::to_vec));
        play(&mut again, 0..30);
        prop_assert_eq!(again.content(), whole.content());
    }
}
