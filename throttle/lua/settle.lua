-- Notes what came of a dial. One that began before the last refusal says nothing
-- new: it neither closes the breaker nor lengthens the pause.
--
-- ARGV: LEASE STREAM, the fingerprint of its credentials; greeted, refused or login;
--       WHY; the time that the relay named; the first PAUSE and the longest; JITTER
--       from 0 to 1
-- Returns: 1

local lease, stream, credentials = take(), take(), take()
local login = loginOf(stream)
local news, why, after = take(), take(), num()
local first, most, jitter = num(), num(), num()
if news == 'login' then
  set('l:' .. login .. ':' .. credentials, int(now) .. ' ' .. why)
end
local list, mine = dials(stream, lease)
keep(stream, list)
local b = breaker(login)
if mine and not (b and mine.start < b.last) then
  if news ~= 'refused' then -- the relay answers
    redis.call('HDEL', state, 'b:' .. login, 'w:' .. login)
  else
    b = b or {since = now, fails = 0}
    b.fails = b.fails + 1
    local full = math.min(first * 1.5 ^ math.min(b.fails - 1, 30), most)
    local pause = math.floor(math.min(full * (0.8 + 0.4 * jitter), most))
    local early = math.min(pause, math.floor(first * (1 + jitter) / 2))
    if after > 0 then
      pause = math.max(pause, after)
      early = pause
    end
    set('b:' .. login, table.concat({int(b.since), int(now), int(now + pause), int(now + early), int(b.fails),
      int(greeted(login, lease))}, ' '))
    set('w:' .. login, why)
  end
end
save()
return 1
