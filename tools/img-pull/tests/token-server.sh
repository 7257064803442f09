#!/bin/bash
# One request to a token server (Docker's "Token Authentication Specification"), from standard input to standard output,
# as `socat TCP-LISTEN:…,fork EXEC:…` runs it. Who knows u's password or has the identity token `secret` gets what he asks
# for; anybody may pull from public/. Signs with key.pem; each request is added to asked.log.
read -r method target _
length=0 auth=
while read -r line && line=${line%$'\r'} && [ -n "$line" ]; do
    case ${line,,} in
    authorization:*) auth=${line#*: } ;;
    content-length:*) length=${line#*: } ;;
    esac
done
read -r -N "$length" body
query="${target#*\?}&$body"
query=${query//+/ }
# Each %XX for what it stands for.
query=$(printf '%b' "${query//%/\\x}")
known=
[ "$auth" = "Basic dTpw" ] && known=yes
[[ $method = POST && $query = *grant_type=refresh_token* && $query = *refresh_token=secret* ]] && known=yes
access=
IFS='&' read -r -a parameters <<< "$query"
for parameter in "${parameters[@]}"; do
    [ "${parameter%%=*}" = scope ] || continue
    IFS=: read -r kind name actions <<< "${parameter#*=}"
    if [ -z "$known" ]; then
        [[ $name = public/* ]] || continue
        actions=pull
    fi
    access="$access${access:+,}{\"type\":\"$kind\",\"name\":\"$name\",\"actions\":[\"${actions//,/\",\"}\"]}"
done
echo "$method known=${known:-no} $query" >> asked.log
encode() { openssl base64 -A | tr '+/' '-_' | tr -d '='; }
now=$(date +%s)
chain=$(openssl x509 -in cert.pem -outform DER | openssl base64 -A)
head=$(printf '{"typ":"JWT","alg":"RS256","x5c":["%s"]}' "$chain" | encode)
claims=$(printf '{"iss":"test","sub":"u","aud":"registry","exp":%d,"nbf":%d,"iat":%d,"jti":"%s","access":[%s]}' \
    $((now + 300)) $((now - 10)) "$now" "$RANDOM$RANDOM" "$access" | encode)
signature=$(printf '%s.%s' "$head" "$claims" | openssl dgst -sha256 -sign key.pem | encode)
answer="{\"token\":\"\",\"access_token\":\"$head.$claims.$signature\",\"expires_in\":300}"
printf 'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' \
    ${#answer} "$answer"
