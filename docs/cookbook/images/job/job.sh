cat /srv/base
