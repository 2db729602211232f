#!/usr/bin/env bash
# Puts this checkout of the shop into service, with a backup of what it replaces.
#
#   scripts/deploy.sh [LABEL]
#
# LABEL, kept with the backup, is the checkout's commit unless it is given. Exits with the status
# of the first step that fails; nothing is migrated without a good backup.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly PARTIAL=3 # a good backup, though not on every destination
label=${1:-$(git rev-parse --short HEAD 2>/dev/null || echo deploy)}
# As Compose reads it: from the environment, then from .env.
owner=${SHOP_UID:-$(sed -n 's/^SHOP_UID=//p' .env 2>/dev/null || :)}
owner=${owner:-1000}
serving=() # what to start again if the deployment stops half-way

say() { printf '==> %s\n' "$*" >&2; }
# The web service knows the site's role alone; the scheduler those that back up and restore, too.
manage() { docker compose run --rm --no-TTY "$1" python manage.py "${@:2}"; }

make_secret() {
    if [[ -s secrets/$1 ]]; then return; fi
    say "Making secrets/$1"
    (
        umask 077
        mkdir -p secrets
        openssl rand -base64 48 >"secrets/$1.new"
    )
    if [[ $EUID -eq 0 ]]; then chown "$owner" "secrets/$1.new"; fi
    mv "secrets/$1.new" "secrets/$1"
    if [[ $1 == backup_passphrase ]]; then
        say "Keep a copy of secrets/$1 away from this machine: without it no backup opens."
    fi
}

on_exit() {
    local status=$?
    if [[ $status -ne 0 && ${#serving[@]} -gt 0 ]]; then
        say "Stopped with status $status before anything was changed: starting the old shop again."
        docker compose start "${serving[@]}" || say "It does not start: see docker compose logs."
    fi
    exit "$status"
}
trap on_exit EXIT

for secret in database_{admin_,,backup_,restore_}password django_secret_key backup_passphrase; do
    make_secret "$secret"
done

say "Building"
docker compose build --quiet web
docker compose up --detach --wait db
docker compose run --rm --no-TTY roles

# An order that comes in between the backup and the migration would be in neither shop.
running=$(docker compose ps --services --status running)
mapfile -t serving < <(grep -xE 'web|scheduler' <<<"$running" || :)
if [[ ${#serving[@]} -gt 0 ]]; then
    say "Closing the shop"
    docker compose stop "${serving[@]}"
fi

say "Backing up"
status=0
manage scheduler backup --kind pre_deploy --label "$label" || status=$?
if [[ $status -eq $PARTIAL ]]; then
    say "The backup is not on every destination; going on with the copy there is."
elif [[ $status -ne 0 ]]; then
    exit "$status"
fi

serving=() # from here on the old shop may not fit the database
say "Migrating"
if ! manage web migrate --no-input; then
    say "The migration failed, and the shop stays closed. To go back: check out the old version, then"
    say "  docker compose build web && docker compose run --rm scheduler python manage.py restore --latest"
    exit 1
fi
manage web collectstatic --no-input --verbosity 0

say "Opening the shop"
docker compose up --detach --wait
say "Done: $label"
