"""The switches for what a job is told and what is told of it (inventory B22 to B39), as data."""

from __future__ import annotations

from typing import Final

from openbits.cli.bitsadmin.switches import ANYWHERE, Switch

JOB: Final = "<job>"
_INDEX: Final = "<file-index>"
_UPLOAD_REPLY: Final = "For UPLOAD-REPLY jobs."
_LOCATIONS: Final = (
    "<store_location> is 1 (CURRENT_USER), 2 (LOCAL_MACHINE), 3 (CURRENT_SERVICE), 4 (SERVICES),",
    "5 (USERS), 6 (CURRENT_USER_GROUP_POLICY), 7 (LOCAL_MACHINE_GROUP_POLICY) or 8 (LOCAL_MACHINE_ENTERPRISE).",
)
_PEERS: Final = "1: the files may come from peers; 2: peers may have them; 4: no BranchCache. Without effect yet."
_HELPER: Final = "1: for local files; 2: for the network; 3: for both; 0: for nothing."
OWNER: Final = "the owner of the job"


def _getter(name: str, row: str, text: str, function: str, *, syntax: str = JOB, help_text: str = "") -> Switch:
    count = len(syntax.split())
    return Switch(
        name=name,
        row=row,
        syntax=syntax,
        arguments=(count, count),
        help=help_text or f"Print {text}",
        function=function,
        is_raw=True,
        action=f"get {text}",
    )


def _setter(
    name: str,
    row: str,
    syntax: str,
    text: str,
    function: str,
    *,
    arguments: tuple[int, int] = (2, 2),
    help_text: str = "",
    needs: str = "",
    details: tuple[str, ...] = (),
) -> Switch:
    return Switch(
        name=name,
        row=row,
        syntax=f"{JOB} {syntax}".rstrip(),
        arguments=arguments,
        help=help_text or f"Set {text}",
        function=function,
        action=f"set {text}",
        needs=needs,
        details=details,
    )


_DESCRIPTIONS: Final = (
    _getter("/getdisplayname", "B22", "the display name", "properties.get_display_name"),
    _setter("/setdisplayname", "B22", "<display_name>", "the display name", "properties.set_display_name"),
    _getter("/getdescription", "B22", "the description", "properties.get_description"),
    _setter("/setdescription", "B22", "<description>", "the description", "properties.set_description"),
    _getter("/getpriority", "B23", "the priority", "properties.get_priority"),
    _setter(
        "/setpriority",
        "B23",
        "<priority>",
        "the priority",
        "properties.set_priority",
        details=("<priority> is FOREGROUND, HIGH, NORMAL or LOW.",),
    ),
)

_NOTIFICATIONS: Final = (
    _getter("/getnotifyflags", "B24", "the notification flags", "properties.get_notify_flags"),
    _setter(
        "/setnotifyflags",
        "B24",
        "<notify_flags>",
        "the notification flags",
        "properties.set_notify_flags",
        details=("The sum of 1 (transferred), 2 (error), 4 (none at all), 8 (modified), 16 (file transferred).",),
    ),
    _getter(
        "/getnotifyinterface",
        "B25",
        "the notification interface",
        "properties.get_notify_interface",
        help_text="Print whether a program takes notifications",
    ),
)

_TIMES: Final = (
    _getter("/getminretrydelay", "B26", "the retry delay in seconds", "properties.get_min_retry_delay"),
    _setter(
        "/setminretrydelay", "B26", "<retry_delay>", "the retry delay in seconds", "properties.set_min_retry_delay"
    ),
    _getter("/getnoprogresstimeout", "B26", "the no progress timeout in seconds", "properties.get_no_progress_timeout"),
    _setter(
        "/setnoprogresstimeout",
        "B26",
        "<timeout>",
        "the no progress timeout in seconds",
        "properties.set_no_progress_timeout",
    ),
    _getter("/getmaxdownloadtime", "B26", "the download timeout in seconds", "properties.get_max_download_time"),
    _setter(
        "/setmaxdownloadtime",
        "B26",
        "<timeout>",
        "the download timeout in seconds",
        "properties.set_max_download_time",
    ),
)

_PROXIES: Final = (
    _setter(
        "/setproxysettings",
        "B27",
        "<usage> [<proxy_list> <bypass_list>]",
        "the proxy settings",
        "properties.set_proxy_settings",
        arguments=(2, 4),
        details=(
            "<usage> is PRECONFIG (the account's own settings), AUTODETECT, NO_PROXY, or OVERRIDE, with lists:",
            'proxies divided by commas, and hosts to reach without, divided by spaces; NULL or "" for none.',
        ),
    ),
    _getter("/getproxyusage", "B28", "the proxy usage", "properties.get_proxy_usage"),
    _getter("/getproxylist", "B28", "the proxy list", "properties.get_proxy_list"),
    _getter("/getproxybypasslist", "B28", "the proxy bypass list", "properties.get_proxy_bypass_list"),
    Switch(
        name="/takeownership",
        row="B29",
        syntax=JOB,
        arguments=(1, 1),
        help="Make a job your own",
        function="properties.take_ownership",
        action="take ownership of the job",
        needs="an administrator",
    ),
    _setter(
        "/setnotifycmdline",
        "B30",
        "<program> [<parameters>]",
        "the notification command line",
        "properties.set_notify_command_line",
        arguments=(2, ANYWHERE),
        needs=OWNER,
        details=(
            "<program> is a full path; <parameters>, one word in quotes or several, begin with the program's path or",
            "name, and are NULL where there are none. No shell reads them.",
            "NULL NULL takes the command line off the job.",
        ),
    ),
    _getter("/getnotifycmdline", "B30", "the notification command line", "properties.get_notify_command_line"),
)

_SECURITY: Final = (
    _setter(
        "/setcredentials",
        "B31",
        "<target> <scheme> [<username> [<password>]]",
        "credentials",
        "security.set_credentials",
        arguments=(3, 5),
        needs=OWNER,
        details=(
            "<target> is SERVER or PROXY; <scheme> BASIC, DIGEST, NTLM, NEGOTIATE or PASSPORT.",
            "NULL NULL, with NTLM and NEGOTIATE, allows the account's own credentials.",
            "A command line can be seen by other accounts: without <password> the terminal is asked.",
        ),
    ),
    _setter(
        "/removecredentials",
        "B31",
        "<target> <scheme>",
        "credentials",
        "security.remove_credentials",
        arguments=(3, 3),
        help_text="Remove credentials",
        needs=OWNER,
    ),
    _getter("/getcustomheaders", "B32", "the custom headers", "security.get_custom_headers"),
    _setter(
        "/setcustomheaders",
        "B32",
        "<header1> [<header2> ...]",
        "the custom headers",
        "security.set_custom_headers",
        arguments=(2, ANYWHERE),
        needs=OWNER,
        details=("Each is Name:value, in quotes where it has spaces; NULL alone takes all away.",),
    ),
    _setter(
        "/makecustomheaderswriteonly",
        "B32",
        "",
        "the custom headers write-only",
        "security.hide_custom_headers",
        arguments=(1, 1),
        help_text="Let nobody read the custom headers any more, for good",
        needs=OWNER,
    ),
    _getter("/gethttpmethod", "B33", "the HTTP method", "security.get_http_method"),
    _setter("/sethttpmethod", "B33", "<method>", "the HTTP method", "security.set_http_method"),
    _getter("/getclientcertificate", "B34", "the client certificate", "security.get_client_certificate"),
    _setter(
        "/setclientcertificatebyid",
        "B34",
        "<store_location> <store_name> <hexadecimal_hash>",
        "the client certificate",
        "security.set_client_certificate_by_id",
        arguments=(4, 4),
        needs=OWNER,
        details=_LOCATIONS,
    ),
    _setter(
        "/setclientcertificatebyname",
        "B34",
        "<store_location> <store_name> <subject_name>",
        "the client certificate",
        "security.set_client_certificate_by_name",
        arguments=(4, 4),
        needs=OWNER,
        details=_LOCATIONS,
    ),
    _setter(
        "/removeclientcertificate",
        "B34",
        "",
        "the client certificate",
        "security.remove_client_certificate",
        arguments=(1, 1),
        help_text="Remove the client certificate",
        needs=OWNER,
    ),
    _setter(
        "/setsecurityflags",
        "B35",
        "<value>",
        "the security flags",
        "security.set_security_flags",
        details=(
            "The sum of 1 (look revocations up), 2 (ignore a wrong name), 4 (ignore a wrong date),",
            "8 (ignore an unknown authority), 16 (ignore a wrong usage); of redirects 0x000 (follow them),",
            "0x100 (follow and report them) or 0x200 (fail); and 0x800 (also from HTTPS to HTTP).",
        ),
    ),
    _getter("/getsecurityflags", "B35", "the security flags", "security.get_security_flags"),
)

_FILES: Final = (
    _setter(
        "/setvalidationstate",
        "B36",
        f"{_INDEX} TRUE|FALSE",
        "the validation state of a file",
        "files.set_validation_state",
        arguments=(3, 3),
        details=(f"{_INDEX} counts from 0.",),
    ),
    _getter(
        "/getvalidationstate",
        "B36",
        "the validation state of a file",
        "files.get_validation_state",
        syntax=f"{JOB} {_INDEX}",
    ),
    _getter(
        "/gettemporaryname",
        "B36",
        "the temporary name of a file",
        "files.get_temporary_name",
        syntax=f"{JOB} {_INDEX}",
    ),
    _getter(
        "/getpeerstats",
        "B36",
        "statistics about peers",
        "files.get_peer_stats",
        help_text="Print how much of a file came from peers",
        syntax=f"{JOB} {_INDEX}",
    ),
    _setter(
        "/setpeercachingflags",
        "B37",
        "<value>",
        "the peer caching flags",
        "files.set_peer_caching_flags",
        details=(_PEERS,),
    ),
    _getter("/getpeercachingflags", "B37", "the peer caching flags", "files.get_peer_caching_flags"),
    _getter("/getreplyfilename", "B38", "the name of the reply's file", "files.get_reply_file_name"),
    _setter(
        "/setreplyfilename",
        "B38",
        "<path>",
        "the name of the reply's file",
        "files.set_reply_file_name",
        details=(_UPLOAD_REPLY,),
    ),
    _getter(
        "/getreplyprogress",
        "B38",
        "the reply's progress",
        "files.get_reply_progress",
        help_text="Print how much of the reply is here",
    ),
    _getter(
        "/getreplydata", "B38", "the reply", "files.get_reply_data", help_text="Print the reply in hexadecimal digits"
    ),
)

_HELPERS: Final = (
    _setter(
        "/sethelpertoken",
        "B39",
        "[<user@domain> <password>]",
        "the helper token",
        "security.set_helper_token",
        arguments=(1, 3),
        needs=OWNER,
        details=(
            "The helper is the account that runs this command, for as long as it is logged on.",
            "A name and a password are refused: nobody is logged on by a password here.",
        ),
    ),
    _getter(
        "/gethelpertokensid",
        "B39",
        "the helper token's account",
        "security.get_helper_token_sid",
        help_text="Print whose helper token there is",
    ),
    _setter(
        "/sethelpertokenflags",
        "B39",
        "<flags>",
        "the helper token flags",
        "security.set_helper_token_flags",
        needs=OWNER,
        details=(_HELPER,),
    ),
    _getter("/gethelpertokenflags", "B39", "the helper token flags", "security.get_helper_token_flags"),
)

PROPERTY_SWITCHES: Final[tuple[Switch, ...]] = (
    *_DESCRIPTIONS,
    *_NOTIFICATIONS,
    *_TIMES,
    *_PROXIES,
    *_SECURITY,
    *_FILES,
    *_HELPERS,
)
