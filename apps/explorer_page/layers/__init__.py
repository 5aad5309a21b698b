"""What can be drawn over a plane, each layer as plain arrays. Nothing here knows Panel or Bokeh."""
