-- Puts off the lapse of leases, and of the dials among them. One that is not
-- known (any more) is taken again if the configured limit has room: what was
-- learned closes no connection.
--
-- ARGV: LAPSE, and that of a dial; open connections (see lib.lua); COUNT of
--       leases, then LEASE and 1 if it is not greeted yet, each
-- Returns: {1 or 0 for each lease}, {GROUP, …} that have a learned rate

local lapse, dialing = num(), num()
local mayOpen = openings(false)
local held, under, streams = {}, {}, {}
for i = 1, num() do
  local lease, ungreeted = take(), take() == '1'
  local stream = string.match(lease, '^([^:]*):')
  if redis.call('ZSCORE', open, lease) or mayOpen(stream) then
    redis.call('ZADD', open, int(now + lapse), lease)
    held[i] = 1
    if ungreeted then
      if not under[stream] then
        under[stream] = {}
        streams[#streams + 1] = stream
      end
      table.insert(under[stream], lease)
    end
  else
    held[i] = 0
  end
end
for _, stream in ipairs(streams) do
  local list = dials(stream, '')
  local known = {}
  for _, d in ipairs(list) do
    known[d.lease] = d
  end
  for _, lease in ipairs(under[stream]) do
    if not known[lease] then
      known[lease] = {lease = lease, start = now}
      list[#list + 1] = known[lease]
    end
    known[lease].lapse = now + dialing
  end
  keep(stream, list)
end
save()
local groups = {}
local all = redis.call('HGETALL', state)
for i = 1, #all, 2 do
  groups[#groups + 1] = string.match(all[i], '^k:rate:(.+)$')
end
return {held, groups}
