"""The hand-written sections of bits-server(1); generate_manual.py puts the program's own words between them."""

HEAD = r""".\" Written by scripts/generate_manual.py from the program's own help. Change that, not this page.
.TH BITS\-SERVER 1 "" "OpenBITS" "User Commands"
.SH NAME
bits\-server \- take resumable uploads, and hand out files
.SH SYNOPSIS
.B bits\-server \-\-root
.I DIR
.RI [ OPTIONS ]
.br
.B bits\-server \-\-config
.I FILE
.RI [ OPTIONS ]
.br
.BR "bits\-server publish" | unpublish | list
.RI [ ARGUMENTS ]
.SH DESCRIPTION
.B bits\-server
is the other end of
.BR bits (1):
it takes uploads by the BITS upload protocol, from OpenBITS, from Windows and from anything else that speaks it, and
hands out files for download with ranges, validators and conditions.
It serves until SIGTERM or SIGINT, finishes what is under way, and forgets no upload: sessions survive its restart.
.PP
A file appears below the root when all of it is there and durable, in one moment.
Until then its bytes are in
.IR .bits\-sessions ,
which is never served.
.PP
It asks for no passwords: let a reverse proxy do that, or let only this machine connect, as it is unless
.B \-\-listen
says otherwise.
The configuration file, proxies, TLS and published files are described in docs/server.md.
"""

TAIL = r""".SH SIGNALS
.TP
.BR SIGTERM ", " SIGINT
Take no more connections, finish the requests that are under way (30 seconds at most), and end.
.TP
.B SIGHUP
Read the certificates, and of the configuration
.IR [proxy] ", " access_log " and the group of " [publish] ,
again.
.SH EXIT STATUS
.TP
.B 0
Stopped as asked, or the command was carried out.
.TP
.B 1
The server cannot run, or the command was refused: one line on standard error says why and what to do.
.TP
.B 2
Wrong usage or settings.
.TP
.B 130
Interrupted.
.SH ENVIRONMENT
.TP
.B BITS_SERVER_SOCKET
The control socket that
.BR publish ", " unpublish " and " list
speak to.
.TP
.B RUNTIME_DIRECTORY
Where the server makes its control socket; systemd sets it.
.SH FILES
.TP
.IR /run/bits\-server/control.sock ", " $XDG_RUNTIME_DIR/bits\-server/control.sock
The control socket of root's or the system's server, and of a user's; without a runtime directory that is in
.IR ~/.local/state/bits\-server .
.TP
.I DIR/.bits\-sessions
Uploads that are under way.
.SH EXAMPLES
.nf
.RB "$ " "bits\-server \-\-root /srv/in"
.RB "$ " "bits\-server \-\-root /srv/in \-\-listen 0.0.0.0:443 \-\-tls\-cert chain.pem \-\-tls\-key key.pem"
.RB "$ " "bits\-server publish /drivers/net.cab net.cab \-\-expires 12h"
.fi
.SH SEE ALSO
.BR bits (1),
.BR bitsd (8)
"""
