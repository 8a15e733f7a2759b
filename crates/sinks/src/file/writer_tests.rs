use super::*;
use deltaforge_core::fault::Class;

fn lines(texts: &[&str]) -> Lines {
    let mut lines = Lines::default();
    for text in texts {
        lines.bytes.extend_from_slice(text.as_bytes());
        lines.bytes.push(b'\n');
        lines.ends.push(lines.bytes.len());
    }
    lines
}

fn files(dir: &Path) -> Vec<String> {
    let mut files: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| std::fs::read_to_string(e.unwrap().path()).unwrap())
        .collect();
    files.sort();
    files
}

#[test]
fn an_old_file_takes_nothing_more() {
    let dir = tempfile::tempdir().unwrap();
    let rotation = Rotation { max_bytes: 0, max_age_secs: 60 };
    let mut writer = Writer::open(&dir.path().join("e"), rotation).unwrap();
    writer.append(&lines(&["a"]), true).unwrap();
    writer.append(&lines(&["b"]), true).unwrap();
    assert_eq!(files(dir.path()), ["a\nb\n"]);
    writer.regular.as_mut().unwrap().born_ms -= 60_000;
    writer.append(&lines(&["c"]), true).unwrap();
    assert_eq!(files(dir.path()), ["a\nb\n", "c\n"]);
    writer.append(&lines(&["d"]), true).unwrap();
    assert_eq!(files(dir.path()), ["a\nb\n", "c\nd\n"], "the new one is young");
    // An empty file is not put aside, however old.
    let mut empty = Writer::open(&dir.path().join("x"), rotation).unwrap();
    empty.regular.as_mut().unwrap().born_ms = 0;
    empty.append(&lines(&["e"]), true).unwrap();
    assert_eq!(files(dir.path()).len(), 3);
}

#[test]
fn every_division_by_size() {
    for max_bytes in 1..=12 {
        let dir = tempfile::tempdir().unwrap();
        let mut writer =
            Writer::open(&dir.path().join("e"), Rotation { max_bytes, max_age_secs: 0 }).unwrap();
        writer.append(&lines(&["1", "22", "333"]), false).unwrap();
        writer.append(&lines(&["4444", "5"]), false).unwrap();
        let files = files(dir.path());
        for file in &files {
            assert!(file.len() as u64 <= max_bytes || file.lines().count() == 1, "{max_bytes}: {files:?}");
            assert!(!file.is_empty(), "{max_bytes}: {files:?}");
        }
        let all: Vec<&str> = files.iter().flat_map(|file| file.lines()).collect();
        assert_eq!(all, ["1", "22", "333", "4444", "5"], "{max_bytes}");
    }
}

#[test]
fn the_end_of_the_last_line_is_found_across_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("e");
    for (content, end) in [("", 0), ("ab", 0), ("a\n", 2), ("a\nb", 2)] {
        for gap in [0, 65_535, 65_536, 65_537, 200_000] {
            let content = format!("{content}{}", "x".repeat(gap));
            std::fs::write(&path, &content).unwrap();
            let expected = content.rfind('\n').map_or(0, |at| at as u64 + 1);
            assert!(expected == end);
            let found = last_line_end(&mut File::open(&path).unwrap(), content.len() as u64).unwrap();
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn what_errors_mean() {
    let cases = [
        (ErrorKind::StorageFull, Class::Retry, "file.disk_full"),
        (ErrorKind::QuotaExceeded, Class::Retry, "file.disk_full"),
        (ErrorKind::FileTooLarge, Class::Retry, "file.disk_full"),
        (ErrorKind::PermissionDenied, Class::Config, "file.permission_denied"),
        (ErrorKind::ReadOnlyFilesystem, Class::Config, "file.permission_denied"),
        (ErrorKind::NotADirectory, Class::Config, "file.not_a_file"),
        (ErrorKind::Other, Class::Retry, "file.io"),
    ];
    for (kind, class, code) in cases {
        let fault = fault(Path::new("/x"), "written", &kind.into());
        assert_eq!((fault.class(), fault.code()), (class, code));
    }
}
