use proptest::prelude::*;

use super::super::mark::Marker;
use super::*;
use crate::go::layout::Layout;

/// A run of pages in our own memory, whose objects are words of `contents`.
fn pages(contents: &[u64], object_size: u64, with_pointers: bool) -> Span {
    let start = contents.as_ptr() as u64;
    let base = start.next_multiple_of(PAGE);
    Span {
        base,
        size: PAGE,
        object_size,
        objects: PAGE / object_size,
        first: 0,
        piece: with_pointers.then_some(0),
        specials: 0,
    }
}

fn room() -> Vec<u64> {
    vec![0; 2 * PAGE as usize / 8]
}

/// Writes `value` into our own pages.
fn write(contents: &mut [u64], span: &Span, word: u64, value: u64) {
    let at = (span.base - contents.as_ptr() as u64) / 8 + word;
    contents[at as usize] = value;
}

fn ourselves() -> Memory {
    Memory {
        pid: std::process::id(),
    }
}

#[test]
fn what_is_pointed_to_is_reached_and_nothing_else() {
    let (mut first, mut second) = (room(), room());
    let (nodes, leaves) = (pages(&first, 32, true), pages(&second, 16, false));
    // Node 0 → node 3, by an address within it, → leaf 5; node 7 → leaf 6, and back to itself.
    write(&mut first, &nodes, 1, nodes.base + 3 * 32 + 9);
    write(&mut first, &nodes, 3 * 4 + 2, leaves.base + 5 * 16);
    write(&mut first, &nodes, 7 * 4, leaves.base + 6 * 16);
    write(&mut first, &nodes, 7 * 4 + 1, nodes.base + 7 * 32);
    // A leaf holds no pointers, whatever it looks like.
    write(&mut second, &leaves, 5 * 2, nodes.base + 7 * 32);
    let heap = Heap::of(vec![nodes.clone(), leaves.clone()], ourselves(), u64::MAX).unwrap();
    let mut marker = Marker::new(&heap);
    for (watcher, address) in [leaves.base + 5 * 16, leaves.base + 6 * 16, nodes.base + 7 * 32]
        .into_iter()
        .enumerate()
    {
        assert!(marker.watch(address, watcher));
    }
    assert!(!marker.watch(8, 3), "no object is there");
    marker.reach(nodes.base);
    marker.run();
    assert_eq!(marker.take_woken(), [0]);
    marker.reach(nodes.base + 7 * 32);
    marker.run();
    let mut woken = marker.take_woken();
    woken.sort_unstable();
    assert_eq!(woken, [1, 2]);
    assert!(marker.is_awake(2) && !marker.is_awake(3));
}

#[test]
fn what_is_forbidden_is_no_way_to_anything() {
    let mut contents = room();
    let nodes = pages(&contents, 32, true);
    write(&mut contents, &nodes, 0, nodes.base + 32);
    write(&mut contents, &nodes, 4, nodes.base + 64);
    let heap = Heap::of(vec![nodes.clone()], ourselves(), u64::MAX).unwrap();
    let mut marker = Marker::new(&heap);
    marker.forbid(nodes.base + 32);
    marker.watch(nodes.base + 64, 0);
    marker.reach(nodes.base);
    marker.run();
    assert!(!marker.is_awake(0));
}

#[test]
fn heaps_without_room_are_refused() {
    let contents = room();
    let nodes = pages(&contents, 32, true);
    assert!(matches!(
        Heap::of(vec![nodes.clone()], ourselves(), PAGE - 1),
        Err(Refusal::TooLarge(_))
    ));
    let far = Span {
        base: 1 << 46,
        ..nodes.clone()
    };
    assert!(matches!(
        Heap::of(vec![nodes, far], ourselves(), u64::MAX),
        Err(Refusal::TooLarge(_))
    ));
    assert!(available() > PAGE);
}

proptest! {
    /// Whatever stands where the runtime's lists should be: no panic, and nothing without bounds.
    #[test]
    fn any_bytes_are_parsed_in_bounds(
        fields in proptest::collection::vec(prop_oneof![Just(0), Just(8192), Just(1 << 40), any::<u64>()], 20),
        state in 0..3_u8,
        cut in 0..161_usize,
    ) {
        let (layout, _) = Layout::of(Some(27)).unwrap();
        let mut bytes: Vec<u8> = fields.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes[layout.mspan.state] = state;
        bytes.truncate(cut);
        let spans: Vec<Span> = parse(&layout.mspan, &bytes).into_iter().collect();
        let many = [spans.clone(), spans].concat();
        let heap = Heap::of(many, ourselves(), 1 << 20);
        if let Ok(heap) = heap {
            let mut marker = Marker::new(&heap);
            for &word in &fields {
                marker.reach(word);
            }
            marker.run();
        }
    }
}
