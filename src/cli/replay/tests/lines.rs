//! The forms of a line's start.

use super::super::line::Line;
use super::super::patterns::Program;

#[test]
fn all_forms_of_a_start_lead_to_the_message() {
    const MESSAGE: &str = "Invalid user ann from 192.0.2.7 port 4";
    for start in [
        "Nov 20 10:00:00 web sshd[812]: ",
        "Nov  2 10:00:00 web sshd[812]: ",
        "Nov 2 10:00:00 sshd[812]: ",
        "<35>Nov 20 10:00:00 web sshd[812]: ",
        "2026-11-20T10:00:00.123456+01:00 web sshd[812]: ",
        "2026-11-20T10:00:00Z web sshd[812]: ",
        "2026-11-20 10:00:00.123456+0100 web sshd[812]: ",
        "2026-11-20T10:00:00+01:00 web sshd[812] ",
        "<35>1 2026-11-20T10:00:00+01:00 web sshd 812 - - ",
        "<35>1 2026-11-20T10:00:00+01:00 web sshd 812 ID1 [timeQuality tzKnown=\"1\" isSynced=\"1\"] ",
        "2026-11-20T10:00:00+01:00 web sshd 812 - - ",
        "Nov 20 10:00:00 web auth.info sshd[812]: ",
        "Nov 20 10:00:00 <10.5> web sshd[812]: ",
        "2026-11-20T10:00:00.12345 auth.info: Nov 20 10:00:00 sshd[812]: ",
    ] {
        let text = format!("{start}{MESSAGE}");
        let line = Line::of(text.as_bytes());
        assert_eq!(line.program, Some(Program::Sshd), "{start}");
        assert_eq!(std::str::from_utf8(line.message), Ok(MESSAGE), "{start}");
        assert_eq!(line.pid, 812, "{start}");
        assert!(line.stamp.is_some(), "{start}");
    }
    for start in ["", "2026-11-20 10:00:00.123456789 ", "2026-11-20T10:00:00.1 auth.info: "] {
        let text = format!("{start}{MESSAGE}");
        let line = Line::of(text.as_bytes());
        assert_eq!((line.program, line.message), (None, MESSAGE.as_bytes()), "{start}");
    }
}

#[test]
fn the_service_of_pam_is_found_in_all_its_forms() {
    for (text, service) in [
        ("Nov 20 10:00:00 web auth: pam_unix(dovecot:auth): authentication failure; x", "dovecot"),
        ("Nov 20 10:00:00 web sshd(pam_unix)[7]: authentication failure; x", "sshd"),
        ("Nov 20 10:00:00 web vsftpd: (pam_unix) authentication failure; x", "vsftpd"),
        ("pam_unix(cockpit:auth): authentication failure; x", "cockpit"),
    ] {
        let line = Line::of(text.as_bytes());
        assert_eq!(line.program, Some(Program::PamUnix), "{text}");
        assert_eq!(std::str::from_utf8(line.service), Ok(service), "{text}");
        assert_eq!(line.message, b"authentication failure; x", "{text}");
    }
    let more = Line::of(b"Nov 20 10:00:00 web sshd[7]: PAM 2 more authentication failures; x");
    assert_eq!(
        (more.service, more.message),
        (&b"sshd"[..], &b"2 more authentication failures; x"[..])
    );
}
