-- Forgets breakers, refused logins and all that was learned; or, with a stream, only
-- that these credentials of its login were refused. After dials.lua.
--
-- ARGV: STREAM or ''; fingerprint of the credentials
-- Returns: 1

local stream, credentials = take(), take()
if stream ~= '' then
  redis.call('HDEL', state, 'l:' .. loginOf(stream) .. ':' .. credentials)
  return 1
end
local all = redis.call('HGETALL', state)
for i = 1, #all, 2 do
  if string.match(all[i], '^[bwlk]:') then
    redis.call('HDEL', state, all[i])
  end
end
return 1
