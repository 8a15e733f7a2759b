use super::*;

#[test]
fn errors() {
    use deltaforge_core::Class;
    let cases = [
        (ErrorKind::BrokenPipe, Class::Config, "stdout.closed"),
        (ErrorKind::StorageFull, Class::Retry, "stdout.disk_full"),
        (ErrorKind::Other, Class::Retry, "stdout.io"),
    ];
    for (kind, class, code) in cases {
        let fault = fault(&kind.into());
        assert_eq!((fault.class(), fault.code()), (class, code));
    }
    assert_eq!(fault(&io::Error::from_raw_os_error(EBADF)).code(), "stdout.closed");
}
