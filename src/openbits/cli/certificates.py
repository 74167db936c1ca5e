"""The commands about the certificate that a job presents: set-client-certificate, remove-client-certificate."""

from __future__ import annotations

import click

from openbits.cli.common import Context, find_job, job_argument, json_option, pass_context, socket_option
from openbits.cli.jobs import report
from openbits.client import certificates
from openbits.client.certificates import CertificateStoreLocation


@click.command("set-client-certificate")
@job_argument
@click.option(
    "--location",
    metavar="LOCATION",
    type=click.Choice([location.value for location in CertificateStoreLocation]),
    default=CertificateStoreLocation.CURRENT_USER.value,
    show_default=True,
    help="Where the store is: current_user, local_machine, current_service, services, users …",
)
@click.option("--store", metavar="NAME", default="MY", show_default=True, help="MY, CA, ROOT, SPC, or another name.")
@click.option("--sha1", metavar="HEX", help="Its SHA-1 fingerprint: 40 hexadecimal digits, with or without colons.")
@click.option("--subject", metavar="TEXT", help="A part of its subject, such as its common name.")
@json_option
@socket_option
@pass_context
def set_client_certificate(
    context: Context, job: str, *, location: str, store: str, sha1: str | None, subject: str | None, as_json: bool
) -> None:
    """Let a job present a client certificate to servers that ask for one.

    It lies, with its private key, in a directory: the store MY of current_user is
    ~/.config/openbits/certificates/MY. It is named by its fingerprint, or by a part of its subject: then the first one
    that fits and is good for clients is taken. Only the owner of a job can do this.
    """
    if (sha1 is None) == (subject is None):
        raise click.UsageError("give --sha1 HEX or --subject TEXT")
    session = context.session()
    job_id = find_job(session, job)
    call = certificates.set_client_certificate(job_id, location, store, sha1=sha1, subject=subject)
    report(session.perform(call), as_json=as_json)


@click.command("remove-client-certificate")
@job_argument
@json_option
@socket_option
@pass_context
def remove_client_certificate(context: Context, job: str, as_json: bool) -> None:
    """Let a job present no client certificate any more."""
    session = context.session()
    report(session.perform(certificates.remove_client_certificate(find_job(session, job))), as_json=as_json)
