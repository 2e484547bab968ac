//! What log lines mean: one table, in which the first pattern that matches decides.

use self::{Means::*, Program::*, Sign::*, Trace::*};

/// Who writes a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// sshd and its processes.
    Sshd,
    /// Dovecot's login and auth processes.
    Dovecot,
    /// Postfix's SMTP servers.
    Postfix,
    /// vsftpd.
    Vsftpd,
    /// ProFTPD.
    Proftpd,
    /// pam_unix, in whatever service: the message behind `pam_unix(SERVICE:auth): `.
    PamUnix,
    /// Anybody.
    Any,
}

/// What a line means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// An attempt that failed.
    Failed(Trace),
    /// A login.
    Accepted(Means),
    /// The end of a connection.
    Closed,
    /// No attempt, or none that another line does not tell of.
    Nothing,
}

/// Which of the several lines that one failed attempt may leave ([`super::once`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// The only one of its service.
    Own,
    /// sshd's of a PAM conversation.
    Conversation,
    /// sshd's of the method, beside that of the conversation.
    Method,
    /// Dovecot's, of a passdb that is PAM.
    PamPassdb,
    /// Dovecot's, of another passdb.
    OtherPassdb,
    /// Of the server behind which Dovecot checks passwords: all of a connection, or one.
    Server,
    /// pam_unix's, which may stand beside any of these.
    Pam,
}

/// How somebody got in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// With a password, through the whole PAM stack.
    Password,
    /// With a key or a ticket: PAM is only asked about the account.
    Key,
    /// With a password, told with each message of the connection.
    PerMessage,
}

/// One row of the table.
pub struct Pattern {
    /// What `check --line` calls it.
    pub name: &'static str,
    /// Who writes it.
    pub by: Program,
    /// What it means, for programs.
    pub sign: Sign,
    /// What it means, for people.
    pub meaning: &'static str,
    /// What the message looks like ([`super::template`]).
    pub template: &'static str,
    /// A whole line.
    pub example: &'static str,
}

macro_rules! patterns {
    ($($name:literal $by:ident $sign:expr, $meaning:literal, $template:literal, $example:literal;)*) => {
        /// All patterns, in the order in which they are tried.
        pub const PATTERNS: &[Pattern] = &[$(Pattern {
            name: $name,
            by: $by,
            sign: $sign,
            meaning: $meaning,
            template: $template,
            example: $example,
        }),*];
    };
}

patterns! {
    // sshd
    "sshd-password-failed-invalid" Sshd Failed(Own),
        "a wrong password for a user who does not exist",
        "Failed password for invalid user <user> from <host> port <word><any>",
        "Dec 10 06:55:48 web sshd[24200]: Failed password for invalid user ann from 192.0.2.7 port 38926 ssh2";
    "sshd-password-failed" Sshd Failed(Own),
        "a wrong password",
        "Failed password for <user> from <host> port <word><any>",
        "Dec 10 06:55:48 web sshd-session[24200]: Failed password for root from 2001:db8::7 port 38926 ssh2";
    "sshd-keyboard-failed-invalid" Sshd Failed(Method),
        "a wrong answer for a user who does not exist",
        "Failed keyboard-interactive<any> for invalid user <user> from <host> port <word><any>",
        "Dec 10 06:55:48 web sshd[24200]: Failed keyboard-interactive/pam for invalid user ann from 192.0.2.7 port 38926 ssh2";
    "sshd-keyboard-failed" Sshd Failed(Method),
        "a wrong answer",
        "Failed keyboard-interactive<any> for <user> from <host> port <word><any>",
        "Dec 10 06:55:48 web sshd[24200]: Failed keyboard-interactive/pam for root from 192.0.2.7 port 38926 ssh2";
    "sshd-none-failed" Sshd Nothing,
        "a client asked which methods there are",
        "Failed none for <user> from <host> port <word><any>",
        "Dec 10 06:55:48 web sshd[24200]: Failed none for invalid user ann from 192.0.2.7 port 38926 ssh2";
    "sshd-key-failed" Sshd Nothing,
        "a key that is not accepted never reaches PAM",
        "Failed publickey for <user> from <host> port <word><any>",
        "Dec 10 06:55:48 web sshd[24200]: Failed publickey for root from 192.0.2.7 port 38926 ssh2: ED25519 SHA256:AAAA";
    "sshd-host-failed" Sshd Nothing,
        "a host key that is not accepted never reaches PAM",
        "Failed hostbased for <user> from <host> port <word><any>",
        "Dec 10 06:55:48 web sshd[24200]: Failed hostbased for root from 192.0.2.7 port 38926 ssh2";
    "sshd-ticket-failed" Sshd Nothing,
        "a Kerberos ticket that is not accepted never reaches PAM",
        "Failed gssapi<any> for <user> from <host> port <word><any>",
        "Dec 10 06:55:48 web sshd[24200]: Failed gssapi-with-mic for root from 192.0.2.7 port 38926 ssh2";
    "sshd-method-failed" Sshd Failed(Own),
        "a failed attempt by another method",
        "Failed <word> for <user> from <host> port <word><any>",
        "Dec 10 06:55:48 web sshd[24200]: Failed challenge-response for root from 192.0.2.7 port 38926 ssh2";
    "sshd-password-accepted" Sshd Accepted(Password),
        "a login with a password",
        "Accepted password for <user> from <host> port <word><any>",
        "Dec 10 09:32:20 web sshd[24680]: Accepted password for ann from 192.0.2.7 port 49116 ssh2";
    "sshd-keyboard-accepted" Sshd Accepted(Password),
        "a login through a PAM conversation",
        "Accepted keyboard-interactive<any> for <user> from <host> port <word><any>",
        "Dec 10 09:32:20 web sshd[24680]: Accepted keyboard-interactive/pam for ann from 192.0.2.7 port 49116 ssh2";
    "sshd-key-accepted" Sshd Accepted(Key),
        "a login without a password",
        "Accepted <word> for <user> from <host> port <word><any>",
        "Dec 10 09:32:20 web sshd[24680]: Accepted publickey for ann from 192.0.2.7 port 49116 ssh2: ED25519 SHA256:AAAA";
    "sshd-partial" Sshd Nothing,
        "the first of several methods was right",
        "Partial <word> for <user> from <host> port <word><any>",
        "Dec 10 09:32:20 web sshd[24680]: Partial publickey for ann from 192.0.2.7 port 49116 ssh2";
    "sshd-postponed" Sshd Nothing,
        "a method has begun",
        "Postponed <any> for <user> from <host> port <word><any>",
        "Dec 10 09:32:20 web sshd[24680]: Postponed keyboard-interactive for ann from 192.0.2.7 port 49116 ssh2 [preauth]";
    "sshd-pam-exhausted" Sshd Failed(Conversation),
        "PAM let nobody try, as when a prefix is full",
        "error: PAM: Have exhausted maximum number of retries for service for <user> from <host>",
        "Dec 10 06:55:48 web sshd[24200]: error: PAM: Have exhausted maximum number of retries for service for root from 192.0.2.7";
    "sshd-pam-failed-illegal" Sshd Failed(Conversation),
        "a wrong answer to PAM for a user who does not exist",
        "error: PAM: <any> for illegal user <user> from <host>",
        "Dec 10 06:55:48 web sshd[24200]: error: PAM: User not known to the underlying authentication module for illegal user ann from 192.0.2.7";
    "sshd-pam-failed" Sshd Failed(Conversation),
        "a wrong answer to PAM",
        "error: PAM: <any> for <user> from <host>",
        "2026-11-20T10:00:00.123456+01:00 web sshd[24200]: error: PAM: Authentication failure for root from 2001:db8::7";
    "sshd-invalid-user" Sshd Nothing,
        "a user who does not exist; the attempt has a line of its own",
        "Invalid user <user> from <host> port <word>",
        "Dec 10 06:55:46 web sshd[24200]: Invalid user ann from 192.0.2.7 port 38926";
    "sshd-invalid-user-old" Sshd Nothing,
        "a user who does not exist; the attempt has a line of its own",
        "Invalid user <user> from <host>",
        "Dec 10 06:55:46 web sshd[24200]: Invalid user ann from 192.0.2.7";
    "sshd-user-not-allowed" Sshd Nothing,
        "a user whom the settings of sshd refuse",
        "User <user> from <host> not allowed because <any>",
        "Dec 10 06:55:46 web sshd[24200]: User ann from 192.0.2.7 not allowed because not listed in AllowUsers";
    "sshd-root-refused" Sshd Nothing,
        "root may not log in so",
        "ROOT LOGIN REFUSED FROM <host><any>",
        "Dec 10 06:55:46 web sshd[24200]: ROOT LOGIN REFUSED FROM 192.0.2.7 port 38926";
    "sshd-too-many" Sshd Nothing,
        "the connection ends after its last attempt",
        "error: maximum authentication attempts exceeded for <user> from <host> port <word><any>",
        "Dec 10 06:55:46 web sshd[24200]: error: maximum authentication attempts exceeded for root from 192.0.2.7 port 38926 ssh2 [preauth]";
    "sshd-disconnecting-user" Sshd Nothing,
        "sshd ends a connection",
        "Disconnecting authenticating user <user> <host> port <word>: <any>",
        "Dec 10 06:55:46 web sshd[24200]: Disconnecting authenticating user root 192.0.2.7 port 38926: Too many authentication failures [preauth]";
    "sshd-disconnecting-invalid" Sshd Nothing,
        "sshd ends a connection",
        "Disconnecting invalid user <user> <host> port <word>: <any>",
        "Dec 10 06:55:46 web sshd[24200]: Disconnecting invalid user ann 192.0.2.7 port 38926: Too many authentication failures [preauth]";
    "sshd-disconnected-user" Sshd Nothing,
        "a client left while it logged in",
        "Disconnected from authenticating user <user> <host> port <word><any>",
        "Dec 10 06:55:46 web sshd[24200]: Disconnected from authenticating user root 192.0.2.7 port 38926 [preauth]";
    "sshd-disconnected-invalid" Sshd Nothing,
        "a client left while it logged in",
        "Disconnected from invalid user <user> <host> port <word><any>",
        "Dec 10 06:55:46 web sshd[24200]: Disconnected from invalid user ann 192.0.2.7 port 38926 [preauth]";
    "sshd-disconnected" Sshd Nothing,
        "a client left",
        "Disconnected from <host> port <word><any>",
        "Dec 10 06:55:46 web sshd[24200]: Disconnected from 192.0.2.7 port 38926 [preauth]";
    "sshd-connection-user" Sshd Nothing,
        "a client hung up while it logged in",
        "Connection <word> by authenticating user <user> <host> port <word><any>",
        "Dec 10 06:55:46 web sshd[24200]: Connection closed by authenticating user root 192.0.2.7 port 38926 [preauth]";
    "sshd-connection-invalid" Sshd Nothing,
        "a client hung up while it logged in",
        "Connection <word> by invalid user <user> <host> port <word><any>",
        "Dec 10 06:55:46 web sshd[24200]: Connection reset by invalid user ann 192.0.2.7 port 38926 [preauth]";
    "sshd-connection" Sshd Nothing,
        "a client hung up",
        "Connection <word> by <host><any>",
        "Dec 10 06:55:46 web sshd[24200]: Connection closed by 192.0.2.7 port 38926 [preauth]";
    "sshd-connected" Sshd Nothing,
        "a client came",
        "Connection from <host> port <word><any>",
        "Dec 10 06:55:46 web sshd[24200]: Connection from 192.0.2.7 port 38926 on 192.0.2.1 port 22 rdomain \"\"";
    "sshd-timeout" Sshd Nothing,
        "a client did not log in in time",
        "Timeout before authentication for connection from <host> to <any>",
        "Dec 10 06:55:46 web sshd[24200]: Timeout before authentication for connection from 192.0.2.7 to 192.0.2.1, pid = 24201";
    "sshd-timeout-old" Sshd Nothing,
        "a client did not log in in time",
        "fatal: Timeout before authentication for <host><any>",
        "Dec 10 06:55:46 web sshd[24200]: fatal: Timeout before authentication for 192.0.2.7 port 38926";
    "sshd-dropped" Sshd Nothing,
        "sshd refused a connection before any attempt",
        "drop connection #<n> from [<host>]<any>",
        "Dec 10 06:55:46 web sshd[812]: drop connection #0 from [192.0.2.7]:38926 on [192.0.2.1]:22 penalty: failed authentication";

    // pam_unix
    "pam-unix-failed" PamUnix Failed(Pam),
        "a wrong password in a PAM stack, or a user who does not exist",
        "authentication failure; <most> rhost=<host>",
        "Dec 10 06:55:46 web sshd[24200]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7 ";
    "pam-unix-failed-user" PamUnix Failed(Pam),
        "a wrong password in a PAM stack",
        "authentication failure; <most> rhost=<host> <any>user=<user>",
        "Dec 10 06:55:46 web sshd[24200]: pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7  user=root";
    "pam-unix-failed-local" PamUnix Failed(Pam),
        "a failed attempt without an address, as at a console",
        "authentication failure; <most> rhost=",
        "Jul 11 11:33:13 web gdm(pam_unix)[2803]: authentication failure; logname= uid=0 euid=0 tty=:0 ruser= rhost= ";
    "pam-unix-failed-local-user" PamUnix Failed(Pam),
        "a failed attempt without an address, as at a console",
        "authentication failure; <most> rhost= <any>user=<user>",
        "Jul 11 11:33:13 web sudo: pam_unix(sudo:auth): authentication failure; logname=ann uid=1000 euid=0 tty=/dev/pts/0 ruser=ann rhost=  user=ann";
    "pam-unix-more" PamUnix Failed(Pam),
        "more wrong passwords in one PAM conversation",
        "<n> more authentication failure<any>; <most> rhost=<host>",
        "Dec 10 07:13:56 web sshd[24227]: PAM 5 more authentication failures; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7 ";
    "pam-unix-more-user" PamUnix Failed(Pam),
        "more wrong passwords in one PAM conversation",
        "<n> more authentication failure<any>; <most> rhost=<host> <any>user=<user>",
        "Dec 10 07:13:56 web sshd[24227]: PAM 5 more authentication failures; logname= uid=0 euid=0 tty=ssh ruser= rhost=192.0.2.7  user=root";
    "pam-unix-check" PamUnix Nothing,
        "a user who does not exist; the attempt has a line of its own",
        "check pass; user unknown",
        "Dec 10 06:55:46 web sshd[24200]: pam_unix(sshd:auth): check pass; user unknown";

    // Dovecot
    "dovecot-login-failed" Dovecot Failed(Server),
        "the failed attempts of one connection",
        "<any>(auth failed, <n> attempts<any>user=<<user>>, <most>rip=<host>,<any>",
        "Oct 15 08:08:52 mx dovecot: imap-login: Disconnected (auth failed, 3 attempts in 14 secs): user=<ann@example.org>, method=PLAIN, rip=192.0.2.7, lip=192.0.2.1, TLS, session=<1MyTfu0USIqsFQAB>";
    "dovecot-login-failed-nameless" Dovecot Failed(Server),
        "the failed attempts of one connection",
        "<any>(auth failed, <n> attempts<most>rip=<host>,<any>",
        "Oct 15 08:08:52 mx dovecot: imap-login: Disconnected (auth failed, 1 attempts): method=PLAIN, rip=192.0.2.7, lip=192.0.2.1, TLS: Disconnected";
    "dovecot-login" Dovecot Accepted(Password),
        "a login",
        "<any>-login: <any>Login: user=<<user>>, <most>rip=<host>,<any>",
        "Oct 15 08:08:52 mx dovecot: imap-login: Login: user=<ann@example.org>, method=PLAIN, rip=2001:db8::7, lip=2001:db8::1, mpid=812, TLS, session=<1MyTfu0USIqsFQAB>";
    "dovecot-logged-in" Dovecot Accepted(Password),
        "a login (Dovecot 2.4)",
        "<any>-login: <any>Logged in: user=<<user>>, <most>rip=<host>,<any>",
        "2026-10-15T08:08:52.000000+02:00 mx dovecot: imap-login: Logged in: user=<ann@example.org>, method=PLAIN, rip=2001:db8::7, lip=2001:db8::1, mpid=812, TLS, session=<1MyTfu0USIqsFQAB>";
    "dovecot-pam-failed" Dovecot Failed(PamPassdb),
        "a wrong password for Dovecot, by its pam passdb",
        "<most>: pam(<user>,<host><any>): pam_authenticate() failed: <any>",
        "Oct 15 08:08:50 mx dovecot: auth-worker(812): pam(ann@example.org,192.0.2.7,<1MyTfu0USIqsFQAB>): pam_authenticate() failed: Authentication failure (Password mismatch?)";
    "dovecot-pam-unknown" Dovecot Failed(PamPassdb),
        "a user whom Dovecot's pam passdb does not know",
        "<most>: pam(<user>,<host><any>): <any>nknown user<any>",
        "Oct 15 08:08:50 mx dovecot: auth: pam(ann@example.org,192.0.2.7): unknown user (SHA1 of given password: 7c4a8d)";
    "dovecot-mismatch" Dovecot Failed(OtherPassdb),
        "a wrong password for Dovecot, by a passdb that is not PAM",
        "<most>: <word>(<user>,<host><any>): <any>assword mismatch<any>",
        "Oct 15 08:08:50 mx dovecot: auth: passwd-file(ann@example.org,192.0.2.7,<1MyTfu0USIqsFQAB>): Password mismatch";
    "dovecot-unknown" Dovecot Failed(OtherPassdb),
        "a user whom a passdb that is not PAM does not know",
        "<most>: <word>(<user>,<host><any>): <any>nknown user<any>",
        "Oct 15 08:08:50 mx dovecot: auth-worker(812): sql(ann@example.org,192.0.2.7): unknown user";

    // Postfix
    "postfix-sasl-unavailable" Postfix Nothing,
        "the service that checks passwords was away",
        "warning: <any>[<host>]<any>: SASL <word> authentication failed: Connection lost to authentication server",
        "Feb  3 08:29:28 mx postfix/smtpd[2309]: warning: unknown[192.0.2.7]: SASL LOGIN authentication failed: Connection lost to authentication server";
    "postfix-sasl-failed-user" Postfix Failed(Server),
        "a wrong password for mail submission",
        "warning: <any>[<host>]<any>: SASL <word> authentication failed<any>, sasl_username=<user>",
        "Oct 19 19:56:07 mx postfix/submission/smtpd[2309]: warning: unknown[192.0.2.7]: SASL LOGIN authentication failed: UGFzc3dvcmQ6, sasl_username=ann@example.org";
    "postfix-sasl-failed" Postfix Failed(Server),
        "a wrong password for mail submission",
        "warning: <any>[<host>]<any>: SASL <word> authentication failed<any>",
        "Oct 19 19:56:07 mx postfix/smtpd[2309]: warning: unknown[2001:db8::7]: SASL PLAIN authentication failed: authentication failure";
    "postfix-sasl-accepted" Postfix Accepted(PerMessage),
        "a message by somebody who is logged in",
        "<any>: client=<any>[<host>]<any>, sasl_method=<word>, sasl_username=<user>",
        "Oct 19 19:56:07 mx postfix/submission/smtpd[2309]: 4ZpTqd1q3Rz2x: client=home.example.org[192.0.2.7], sasl_method=PLAIN, sasl_username=ann@example.org";
    "postfix-disconnect" Postfix Closed,
        "a client left",
        "disconnect from <any>[<host>]<any>",
        "Oct 19 19:56:08 mx postfix/submission/smtpd[2309]: disconnect from home.example.org[192.0.2.7] ehlo=2 starttls=1 auth=1 mail=1 rcpt=1 data=1 quit=1 commands=8";

    // vsftpd
    "vsftpd-failed" Vsftpd Failed(Own),
        "a wrong password",
        "[<user>] FAIL LOGIN: Client \"<host>\"",
        "Fri Jan 19 12:20:33 2007 [pid 27202] [ann] FAIL LOGIN: Client \"192.0.2.7\"";
    "vsftpd-refused" Vsftpd Nothing,
        "a user whom the settings of vsftpd refuse",
        "[<user>] FAIL LOGIN: Client \"<host>\", <any>",
        "Thu Sep  8 00:39:49 2016 [pid 15019] [ann] FAIL LOGIN: Client \"::ffff:192.0.2.7\", \"User is not in the allow user list.\"";
    "vsftpd-failed-nameless" Vsftpd Failed(Own),
        "a wrong password",
        "<any> FAIL LOGIN: Client \"<host>\"",
        "Jan 19 12:20:33 ftp vsftpd[27202]: - FAIL LOGIN: Client \"192.0.2.7\"";
    "vsftpd-accepted" Vsftpd Accepted(Password),
        "a login",
        "[<user>] OK LOGIN: Client \"<host>\"",
        "Mon Mar  4 01:06:36 2025 [pid 1658] [ann] OK LOGIN: Client \"2001:db8::7\"";
    "vsftpd-anonymous" Vsftpd Nothing,
        "an anonymous login",
        "[<user>] OK LOGIN: Client \"<host>\", anon password <any>",
        "Mon Mar  4 01:06:36 2025 [pid 1658] [ftp] OK LOGIN: Client \"192.0.2.7\", anon password \"guest\"";

    // ProFTPD
    "proftpd-failed" Proftpd Failed(Own),
        "a wrong password",
        "<any>(<any>[<host>])<any>USER <user> (Login failed)<any>",
        "Jun 09 07:30:58 ftp proftpd[11864] ftp.example.org (client.example.net[::ffff:192.0.2.7]): USER ann (Login failed): Incorrect password.";
    "proftpd-accepted" Proftpd Accepted(Password),
        "a login",
        "<any>(<any>[<host>])<any>USER <user>: Login successful<any>",
        "Jun 09 07:31:02 ftp proftpd[11864]: ftp.example.org (client.example.net[192.0.2.7]) - USER ann: Login successful.";
    "proftpd-unknown" Proftpd Failed(Own),
        "a user who does not exist",
        "<any>(<any>[<host>])<any>USER <user>: no such user found<any>",
        "Dec  5 15:44:32 ftp proftpd[70944]: ftp.example.org (client.example.net[192.0.2.7]) - USER ann: no such user found from client.example.net [192.0.2.7] to 192.0.2.1:21";
    "proftpd-unknown-nameless" Proftpd Failed(Own),
        "a user who does not exist",
        "<any>(<any>[<host>])<any> no such user<any>",
        "Dec  5 15:44:32 ftp proftpd[70944]: ftp.example.org (client.example.net [192.0.2.7]) - no such user 'ann'";
    "proftpd-too-many" Proftpd Nothing,
        "the connection ends after its last attempt",
        "<any>(<any>[<host>])<any>Maximum login attempts<any>",
        "May 31 10:53:25 ftp proftpd[15302]: ftp.example.org (::ffff:192.0.2.7[::ffff:192.0.2.7]) - Maximum login attempts (3) exceeded, connection refused";

    // pam_prefixquota
    "prefixquota-denied" Any Nothing,
        "denied by this module; the service tells of the attempt too",
        "pam_prefixquota(<word>:<word>): denied: service=<word> source=<host> <any>",
        "Dec 10 06:55:46 web sshd[24200]: pam_prefixquota(sshd:auth): denied: service=sshd source=2001:db8::7 prefix=2001:db8::7/128 failures=2.0 quota=2 retry_after=3597s; to lift it: prefixquota forgive 2001:db8::7/128";
}
