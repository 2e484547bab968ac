//! FTP servers, which like to give PAM names in place of addresses.

use std::fs;

use super::Finding;

/// Debian's place, then that of Fedora, whose vsftpd looks names up unless it is told not to.
pub fn vsftpd() -> Vec<Finding> {
    let about = "vsftpd";
    let files = [("/etc/vsftpd.conf", "NO"), ("/etc/vsftpd/vsftpd.conf", "YES")];
    let found = files.into_iter().find_map(|(file, default)| {
        fs::read_to_string(file).ok().map(|text| (file, default, text))
    });
    let Some((file, default, text)) = found else { return Vec::new() };
    let named =
        text.lines().rev().find_map(|line| line.trim().strip_prefix("reverse_lookup_enable="));
    if named.unwrap_or(default).trim().eq_ignore_ascii_case("no") {
        return vec![Finding::ok(about, "gives PAM addresses")];
    }
    let what =
        format!("reverse_lookup_enable=YES in {file}: all clients with names share one count");
    vec![Finding::wrong(about, what, "Set reverse_lookup_enable=NO, and restart vsftpd.")]
}

pub fn proftpd() -> Vec<Finding> {
    let about = "proftpd";
    let files = ["/etc/proftpd/proftpd.conf", "/etc/proftpd.conf"];
    let found = files.into_iter().find_map(|file| Some((file, fs::read_to_string(file).ok()?)));
    let Some((file, text)) = found else { return Vec::new() };
    let value = text.lines().rev().find_map(|line| {
        let mut words = line.split_whitespace();
        words.next().filter(|word| word.eq_ignore_ascii_case("UseReverseDNS"))?;
        words.next()
    });
    if value.is_some_and(|value| ["off", "no", "false", "0"].contains(&&*value.to_lowercase())) {
        return vec![Finding::ok(about, "gives PAM addresses")];
    }
    let what = format!("UseReverseDNS is on in {file}: all clients with names share one count");
    vec![Finding::wrong(about, what, "Set UseReverseDNS off, and restart proftpd.")]
}
