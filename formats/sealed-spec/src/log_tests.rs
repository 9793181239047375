//! What the sealer writes, the opener reads; each way to change a log on its way is seen.

use proptest::prelude::*;

use super::*;

fn info() -> LogInfo {
    LogInfo {
        spec: format!("sha256:{}", "0f".repeat(32)),
        container: "web".into(),
        instance: "c0ffee".into(),
        stream: LogStream::Stdout,
    }
}

/// A whole stream of these pushes, as lines.
fn sealed(key: &LogKey, pushes: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    let mut sealer = Sealer::new(&key.recipient(), &info(), &mut out).unwrap();
    for push in pushes {
        sealer.push(push, &mut out).unwrap();
    }
    sealer.finish(&mut out).unwrap();
    assert_eq!(out.pop(), Some(b'\n'));
    out.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect()
}

fn text(line: &Line) -> Option<(Place, Vec<u8>)> {
    match line {
        Line::Sealed(Opened { place, content: Content::Text(text), .. }) => Some((*place, text.to_vec())),
        _ => None,
    }
}

fn copy(key: &LogKey) -> LogKey {
    LogKey::from_bytes(&key.to_bytes()).unwrap()
}

/// Places of all chunks and the report of the only stream.
fn read(key: &LogKey, lines: &[Vec<u8>]) -> (Vec<Place>, StreamReport) {
    let mut opener = Opener::new(copy(key));
    let places = lines
        .iter()
        .map(|line| match opener.line(line) {
            Line::Sealed(opened) => opened.place,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(opener.streams().len(), 1);
    let report = opener.streams().next().unwrap().clone();
    (places, report)
}

#[test]
fn what_is_sealed_opens_and_says_which_stream_it_is() {
    let key = LogKey::generate().unwrap();
    let lines = sealed(&key, &[b"one\ntwo\nthr", b"ee\n", b"$ "]);
    assert_eq!(lines.len(), 5, "start, two lines at once, the third, the prompt, the end");
    let mut opener = Opener::new(copy(&key));
    let read: Vec<_> = lines.iter().filter_map(|line| text(&opener.line(line))).collect();
    assert_eq!(
        read,
        [
            (Place::Next, b"one\ntwo\n".to_vec()),
            (Place::Next, b"three\n".to_vec()),
            (Place::Next, b"$ ".to_vec())
        ]
    );
    let report = opener.streams().next().unwrap();
    assert_eq!(report.info, Some(info()));
    assert!(report.is_whole() && report.ended && report.missing_before == 0);
}

#[test]
fn lines_are_text_of_bounded_and_stepped_length() {
    let key = LogKey::generate().unwrap();
    let long = vec![b'x'; 100_000];
    let lines = sealed(&key, &[&long, b"a\n", b"bb\n"]);
    for line in &lines {
        assert!(line.len() <= MAX_LINE && MAX_LINE < 4096, "{}", line.len());
        assert!(line.iter().all(u8::is_ascii_graphic));
        assert!(line.starts_with(LINE_PREFIX.as_bytes()));
    }
    let short: Vec<_> = lines[lines.len() - 3..].iter().map(Vec::len).collect();
    // Less than a step each: the same length, whatever is in them. The first has the rest of the x's.
    assert_eq!(short[1], short[2]);
    let total: usize = lines.iter().map(Vec::len).sum();
    assert!(total < 150_000, "{total}");
}

#[test]
fn nothing_of_the_text_waits_beyond_a_chunk() {
    let key = LogKey::generate().unwrap();
    let mut out = Vec::new();
    let mut sealer = Sealer::new(&key.recipient(), &info(), &mut out).unwrap();
    let start = out.len();
    sealer.push(b"prompt> ", &mut out).unwrap();
    assert!(sealer.has_pending());
    assert_eq!(out.len(), start);
    sealer.flush(&mut out).unwrap();
    assert!(!sealer.has_pending() && out.len() > start);
    let before = out.len();
    sealer.flush(&mut out).unwrap();
    assert_eq!(out.len(), before, "an empty flush writes nothing");
    assert_eq!(format!("{sealer:?}"), "Sealer { next: 2, .. }");
}

#[test]
fn dropped_chunks_are_counted() {
    let key = LogKey::generate().unwrap();
    let mut lines = sealed(&key, &[b"1\n", b"2\n", b"3\n", b"4\n"]);
    lines.drain(2..4);
    let (places, report) = read(&key, &lines);
    assert_eq!(places, [Place::Next, Place::Next, Place::After(2), Place::Next]);
    assert_eq!((report.missing_between, report.missing_before, report.ended), (2, 0, true));
    assert!(!report.is_whole());
}

#[test]
fn a_missing_beginning_is_told_from_a_gap() {
    let key = LogKey::generate().unwrap();
    let lines = sealed(&key, &[b"1\n", b"2\n", b"3\n"]);
    let (places, report) = read(&key, &lines[2..]);
    assert_eq!(places, [Place::Next, Place::Next, Place::Next]);
    assert_eq!((report.missing_before, report.info.clone()), (2, None));
    assert!(report.is_whole());
}

#[test]
fn a_missing_end_shows() {
    let key = LogKey::generate().unwrap();
    let lines = sealed(&key, &[b"1\n", b"2\n"]);
    let (_, report) = read(&key, &lines[..2]);
    assert!(report.is_whole() && !report.ended);
}

#[test]
fn reordered_and_repeated_chunks_are_told_apart() {
    let key = LogKey::generate().unwrap();
    let mut lines = sealed(&key, &[b"1\n", b"2\n", b"3\n"]);
    lines.swap(1, 2);
    let (places, report) = read(&key, &lines);
    assert_eq!(places, [Place::Next, Place::After(1), Place::Late, Place::Next, Place::Next]);
    assert_eq!((report.missing_between, report.late, report.repeated), (0, 1, 0));
    assert!(!report.is_whole());

    let mut lines = sealed(&key, &[b"1\n", b"2\n"]);
    lines.insert(2, lines[1].clone());
    let (places, report) = read(&key, &lines);
    assert_eq!(places, [Place::Next, Place::Next, Place::Again, Place::Next, Place::Next]);
    assert_eq!((report.late, report.repeated), (0, 1));
    assert!(!report.is_whole());

    let lines = sealed(&key, &[b"1\n", b"2\n", b"3\n"]);
    let order = [3, 1, 0, 2].map(|index: usize| lines[index].clone());
    let (places, report) = read(&key, &order);
    assert_eq!(places, [Place::Next, Place::Late, Place::Late, Place::Late]);
    assert_eq!((report.missing_before, report.missing_between, report.late), (0, 0, 3));
}

#[test]
fn each_changed_bit_is_seen() {
    let key = LogKey::generate().unwrap();
    let line = sealed(&key, &[b"1\n"])[1].clone();
    for at in LINE_PREFIX.len()..line.len() {
        let mut changed = line.clone();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        assert!(matches!(Opener::new(copy(&key)).line(&changed), Line::Broken(_)), "character {at}");
    }
    for end in LINE_PREFIX.len()..line.len() {
        assert!(matches!(Opener::new(copy(&key)).line(&line[..end]), Line::Broken(ChunkError::Malformed)));
    }
}

#[test]
fn other_keys_and_other_senders_do_not_pass() {
    let key = LogKey::generate().unwrap();
    let other = LogKey::generate().unwrap();
    let lines = sealed(&other, &[b"1\n"]);
    assert!(matches!(Opener::new(copy(&key)).line(&lines[1]), Line::Broken(ChunkError::Open)));

    // The host may learn the public point; without the sender secret it makes nothing that opens.
    let forged = LogRecipient { public: key.recipient().public, sender: Default::default() };
    let mut out = Vec::new();
    Sealer::new(&forged, &info(), &mut out).unwrap();
    out.pop();
    assert!(matches!(Opener::new(copy(&key)).line(&out), Line::Broken(ChunkError::Open)));
}

#[test]
fn a_stream_does_not_go_on_under_another_ones_key() {
    let key = LogKey::generate().unwrap();
    let (one, two) = (sealed(&key, &[b"1\n"]), sealed(&key, &[b"2\n"]));
    let mut opener = Opener::new(copy(&key));
    for line in [&one[0], &two[0], &one[1], &two[1]] {
        assert!(matches!(opener.line(line), Line::Sealed(_)));
    }
    assert_eq!(opener.streams().len(), 2);
    assert!(opener.streams().all(|report| report.is_whole() && report.missing_before == 0));
}

#[test]
fn collectors_prefixes_pass_and_others_do_not() {
    let key = LogKey::generate().unwrap();
    let line = String::from_utf8(sealed(&key, &[b"1\n"])[1].clone()).unwrap();
    for prefix in [
        "",
        "[pod/web-7d9c/web] ",
        "2026-11-22T01:02:03.123456789Z ",
        "2026-11-22T01:02:03.123456789Z stdout F ",
        "[pod/web/web] 2026-11-22T01:02:03.123456789+01:00 ",
    ] {
        let line = format!("{prefix}{line}\r");
        match Opener::new(copy(&key)).line(line.as_bytes()) {
            Line::Sealed(opened) => assert_eq!(opened.prefix, prefix.len()),
            other => panic!("{prefix}: {other:?}"),
        }
    }
    for prefix in ["paid: 0 ", "x", " ", "[a b] ", "2026-11-22T01:02:03Z stdout P ", "\u{1b}[2K"] {
        let line = format!("{prefix}{line}");
        assert!(
            matches!(Opener::new(copy(&key)).line(line.as_bytes()), Line::Broken(ChunkError::Malformed)),
            "{prefix:?}"
        );
    }
    let twice = format!("{line}{line}");
    assert!(matches!(Opener::new(copy(&key)).line(twice.as_bytes()), Line::Broken(ChunkError::Malformed)));
    assert!(matches!(Opener::new(copy(&key)).line(b"plain text"), Line::Plain));
}

#[test]
fn keys_in_text_form() {
    let key = LogKey::generate().unwrap();
    let text = String::from(key.recipient());
    assert!(text.parse::<LogRecipient>().unwrap() == key.recipient());
    assert_eq!(format!("{:?} {key:?}", key.recipient()), "LogRecipient(..) LogKey(..)");
    let no_point = format!("p256:A{}.{}", "A".repeat(43), "A".repeat(43));
    let cut = &text[..text.len() - 1];
    let other_curve = text.replace("p256", "p384");
    let longer = format!("{text}A");
    for bad in ["", "p256:", cut, &no_point, &other_curve, &longer] {
        assert!(bad.parse::<LogRecipient>().is_err(), "{bad}");
    }
    assert!(LogKey::from_bytes(&[0; 32]).is_err());
    assert!(LogKey::from_bytes(&[0xff; 32]).is_err());
}

#[test]
fn long_names_are_refused() {
    let key = LogKey::generate().unwrap();
    let info = LogInfo { instance: "x".repeat(3000), ..info() };
    assert!(matches!(Sealer::new(&key.recipient(), &info, &mut Vec::new()), Err(SealerError::Info)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn any_output_comes_back(pushes in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5000), 0..8)) {
        let key = LogKey::generate().unwrap();
        let slices: Vec<&[u8]> = pushes.iter().map(Vec::as_slice).collect();
        let mut opener = Opener::new(copy(&key));
        let mut read = Vec::new();
        for line in sealed(&key, &slices) {
            let line = opener.line(&line);
            prop_assert!(matches!(line, Line::Sealed(_)));
            if let Some((place, text)) = text(&line) {
                prop_assert_eq!(place, Place::Next);
                read.extend(text);
            }
        }
        prop_assert_eq!(read, pushes.concat());
    }

    #[test]
    fn hostile_lines_never_panic(line in prop::collection::vec(any::<u8>(), 0..300), base in "[A-Za-z0-9_-]{0,400}") {
        let mut opener = Opener::new(LogKey::generate().unwrap());
        opener.line(&line);
        opener.line(format!("sealpod1.{base}").as_bytes());
        prop_assert_eq!(opener.streams().len(), 0);
    }
}
