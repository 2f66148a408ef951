-- Forgets breakers, refused logins and all that was learned; or, with a stream, only
-- that these credentials of it were refused.
--
-- ARGV: STREAM or ''; LOGIN
-- Returns: 1

local stream, login = take(), take()
if stream ~= '' then
  redis.call('HDEL', state, 'l:' .. stream .. ':' .. login)
  return 1
end
local all = redis.call('HGETALL', state)
for i = 1, #all, 2 do
  if string.match(all[i], '^[bwlk]:') then
    redis.call('HDEL', state, all[i])
  end
end
return 1
